"""Runs worlds from the command line, and shows the one that fails.

    python -m tests.simulation --worlds 20000 --seed 7
    python -m tests.simulation --seed 1234 --show

Exit status 1 means that a promise was broken.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.simulation.runs import again, minimise, report, run

# Failing worlds that are told in full.
TOLD = 20


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1, help="how many, each with the next seed")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--first", action="store_true", help="stop at the first that fails")
    parser.add_argument("--all", action="store_true", help="tell of every one that fails")
    parser.add_argument("--skip", default="", help="seeds to leave out, with commas")
    parser.add_argument("--show", action="store_true", help="write down all that happens")
    parser.add_argument("--minimise", action="store_true", help="leave out what is not needed")
    parser.add_argument("--about", default="", help="words of what --minimise is to keep wrong")
    parser.add_argument("--without", default="", help="names of actors and faults, with commas")
    return parser.parse_args()


def verdicts(options: argparse.Namespace) -> Iterator[tuple[int, list[str]]]:
    """Seeds and what is wrong with them."""
    skipped = {int(seed) for seed in options.skip.split(",") if seed}
    every = range(options.seed, options.seed + options.worlds)
    seeds = [seed for seed in every if seed not in skipped]
    if options.jobs == 1 or options.worlds < 20:
        for seed in seeds:
            yield seed, run(seed)
        return
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        yield from pool.imap_unordered(judge, seeds, chunksize=10)


def judge(seed: int) -> tuple[int, list[str]]:
    return seed, run(seed)


def tell(text: str) -> None:
    """Print at once: the next world may hang."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    options = parse_options()
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    without = frozenset(filter(None, options.without.split(",")))
    if options.show or options.minimise or without:
        if options.minimise:
            without = minimise(options.seed, without, options.about)
        violations, text = report(options.seed, without)
        tell(text)
        return 1 if violations else 0
    start = time.monotonic()
    failed = done = 0
    for seed, violations in verdicts(options):
        done += 1
        if violations:
            failed += 1
            if failed <= TOLD or options.all:
                tell(f"seed {seed}: {len(violations)} wrong: {violations[0]}\n    {again(seed)}")
            if options.first:
                break
    seconds = time.monotonic() - start
    tell(f"worlds={done} failed={failed} seconds={seconds:.1f} seed={options.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
