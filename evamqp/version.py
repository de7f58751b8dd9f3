"""The version, in one place: the package's metadata and what a broker is told are made from it."""

VERSION = "0.1.0"
