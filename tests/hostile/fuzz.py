"""Feed the readers of bytes with what nobody would send, and keep what breaks them.

With atheris installed the inputs are led by coverage; without it they are mutations of what an
honest broker sends.  An input that breaks something is written to tests/hostile/regressions/, where
the tests play it from then on.  The corpus stays in .fuzz/ and is gone on from; ``--keep`` puts the
few inputs that reach all of it into tests/hostile/corpus/.

Where the compiled build runs, each input is given to both builds, which have to see the same; the
pure one, whose branches are the same, leads.

    python -m tests.hostile.fuzz --minutes 10
    python -m tests.hostile.fuzz --minutes 1 --target tables
    python -m tests.hostile.fuzz --keep
    python -m tests.hostile.fuzz --replay tests/hostile/regressions/tables-0123.bin
    EVAMQP_FUZZ_HOME=$PWD python tools/compiled_tree.py -m tests.hostile.fuzz --minutes 10
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
# How this program runs itself, from ROOT.
AGAIN = (sys.executable, "-m", "tests.hostile.fuzz")
# The checkout that corpus and findings are kept in, if this one does not last.
HOME = Path(os.environ.get("EVAMQP_FUZZ_HOME", ROOT))
CORPUS = HOME / ".fuzz"
REGRESSIONS = HOME / "tests" / "hostile" / "regressions"
NAMES = ("session", "tables", "properties", "frames")
#: Bytes of an input.  Short ones go many times as fast, and find most of what there is to find;
#: of a session the longest ones say nothing new.
SHORT, LONG = 256, 64 * 1024
LONGEST = {"session": 4096}
#: Share of the time: the core has most of the states.
SHARES = {"session": 0.7, "tables": 0.1, "properties": 0.1, "frames": 0.1}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: what an honest peer sends, and what earlier runs found."""
    from tests.hostile import corpus

    return _honest(name) + corpus.read(name)


def _honest(name: str) -> list[bytes]:
    from evamqp.codec.properties import Properties
    from tests.hostile import mutator, targets

    headers = {"a": [1, 2.5, None, True, b"x", "y", {"z": -1}], "t": 2**40, "é": ""}
    if name == "session":
        states = range(len(targets.NAMES))
        return [bytes((state, 0)) + frame for state in states for frame in mutator.FRAMES]
    if name == "frames":
        return list(mutator.FRAMES)
    raw = Properties(content_type="a", headers=headers, priority=1, timestamp=5, app_id="b").raw
    return [raw] if name == "properties" else [Properties(headers=headers).raw[6:]]


def target(name: str) -> Callable[[bytes], object]:
    """What an input is given to; on the compiled build that is both builds."""
    from evamqp import implementation
    from tests.hostile.targets import TARGETS
    from tests.support.builds import on_source

    run = TARGETS[name]
    if implementation == "pure":
        return run
    pure: Callable[[bytes], object] = on_source("tests.hostile.targets").TARGETS[name]

    def both(data: bytes) -> None:
        assert run(data) == pure(data)

    return both


def work(name: str, arguments: list[str]) -> None:
    """Have atheris run one target, led by coverage; it ends the process."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    # The whole package, and the oracle, whose branches tell sessions apart.
    with atheris.instrument_imports(include=["evamqp", "tests.hostile"]):
        run = target(name)

    # A merge runs this command again, in a shell, after each input that ends it.
    command = shlex.join([*AGAIN, "--worker", name])
    atheris.Setup([command, *arguments], run)
    atheris.Fuzz()


def led(name: str, seconds: int) -> tuple[int, int]:
    """Fuzz one target with atheris, half of the time with short inputs: executions, findings."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(name):
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    half = max(1, seconds // 2)
    short, long = (_led(name, half, size) for size in (SHORT, LONGEST.get(name, LONG)))
    return short[0] + long[0], short[1] + long[1]


def _led(name: str, seconds: int, longest: int) -> tuple[int, int]:
    done = _atheris(
        name,
        f"-max_total_time={seconds}",
        f"-max_len={longest}",
        f"-artifact_prefix={REGRESSIONS}/{name}-",
        "-timeout=10",
        "-print_final_stats=1",
        str(CORPUS / name),
    )
    executions = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    findings = 0
    for kind in ("crash", "timeout", "oom"):
        for path in REGRESSIONS.glob(f"{name}-{kind}-*"):
            path.rename(REGRESSIONS / f"{name}-{path.name[-12:]}.bin")
            findings += 1
    if findings or executions is None:
        print(done.stdout + done.stderr)
    return (int(executions[1]) if executions else 0), findings


def keep(name: str) -> None:
    """Put the few inputs that reach all that the corpus reaches into the repository."""
    from tests.hostile import corpus

    with tempfile.TemporaryDirectory() as least:
        done = _atheris(
            name, "-merge=1", f"-max_len={LONGEST.get(name, LONG)}", least, str(CORPUS / name)
        )
        done.check_returncode()
        found = corpus.write(name, (path.read_bytes() for path in Path(least).iterdir()))
    print(f"{name:<11} {found:>10} inputs kept")


def _atheris(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run atheris in a process of its own, which it ends."""
    command = [*AGAIN, "--worker", name, "-verbosity=0", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def unled(name: str, seconds: int, seed: int) -> tuple[int, int]:
    """Fuzz one target with mutations: executions, and findings.  Ends at the first."""
    from tests.hostile import mutator

    run = target(name)
    rng = Random(seed)
    honest = seeds(name)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = bytearray()
        for _ in range(rng.randrange(1, 6)):
            piece = rng.choice(honest)
            data += piece if rng.random() < 0.5 else mutator.mutated(piece, rng)
        count += 1
        try:
            run(bytes(data))
        except Exception:
            path = REGRESSIONS / f"{name}-{hashlib.sha1(data).hexdigest()[:12]}.bin"
            path.write_bytes(data)
            print(f"{path.relative_to(HOME)} (seed {seed})")
            replay(path)
            return count, 1
    return count, 0


def replay(path: Path) -> None:
    """Play one kept input; what it breaks is raised."""
    target(path.name.partition("-")[0])(path.read_bytes())


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:  # _atheris() calls us so; the rest is not for our parser
        work(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--target", choices=NAMES, action="append")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="without atheris")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the corpus; needs atheris")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
        return 0
    chosen = options.target or NAMES
    if options.keep:
        for name in chosen:
            keep(name)
        return 0
    whole = sum(SHARES[name] for name in chosen)
    is_led = importlib.util.find_spec("atheris") is not None
    print("led by coverage" if is_led else f"atheris is not installed: mutations, {options.seed=}")
    total = 0
    for name in chosen:
        seconds = max(1, round(options.minutes * 60 * SHARES[name] / whole))
        count, findings = led(name, seconds) if is_led else unled(name, seconds, options.seed)
        print(f"{name:<11} {count:>10} executions in {seconds} s, {findings} findings", flush=True)
        total += findings
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
