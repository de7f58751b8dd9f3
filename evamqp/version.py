"""The version, in one place: package metadata and client properties are made from it."""

VERSION = "0.1.0"
