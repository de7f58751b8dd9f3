"""A malicious broker, in memory and on sockets: what it may do to us, and what it may not."""
