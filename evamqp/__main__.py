"""``python -m evamqp --version``: what is installed, and which build of it runs."""

from __future__ import annotations

import argparse
import platform

from evamqp import __version__, implementation


def main() -> None:
    """Say the version, the implementation and the interpreter."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parser = argparse.ArgumentParser(prog="python -m evamqp", description=__doc__)
    parser.add_argument(
        "--version", action="version", version=f"evamqp {__version__}, {implementation}, {python}"
    )
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
