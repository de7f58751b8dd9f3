"""A simulation in virtual time: one seed is one world, and every world keeps the promises."""
