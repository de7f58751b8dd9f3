"""Build shim: pyproject.toml says everything; an optional C extension would be declared here."""

from setuptools import setup

setup()
