"""Build shim: pyproject.toml says everything but what has to be computed."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
FILES = "https://github.com/evamqp/evamqp/blob/main/"


def long_description() -> str:
    """The README as PyPI shows it: PyPI knows no files beside it, so its links become absolute."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?://|#)", f"]({FILES}", readme)


setup(long_description=long_description(), long_description_content_type="text/markdown")
