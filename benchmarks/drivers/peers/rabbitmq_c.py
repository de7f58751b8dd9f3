# bench: {"name": "rabbitmq-c", "order": 19, "knows": ["alone"]}
"""rabbitmq-c, the client of C programs: this becomes the program that setup.sh built."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    program = Path(sys.prefix) / "bin" / "bench-rabbitmq-c"
    if not program.exists():
        raise ModuleNotFoundError("rabbitmq-c was not built: librabbitmq-dev and gcc are needed")
    os.execv(program, [str(program), *sys.argv[1:]])
