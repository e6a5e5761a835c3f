"""Runs simulated networks, one per seed, and prints every broken rule; ``scripts/sim`` starts it.

A seed draws a network, files, faults and their end, and always gives the same run. Exit codes: 0 if all runs are ok, 3
if a safety rule is broken, 4 for liveness, 5 if the code raises. If several hold, the first of 5, 3 and 4 is taken.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter

from pspd.sim.scenario import Outcome, run_seed

EXIT_CODES = {"ok": 0, "liveness": 4, "safety": 3, "crash": 5}
GRAVITY = list(EXIT_CODES)

SHOWN_MAX = 5
JOBS_MAX = 256
INTERRUPTED = 130


def parse_seeds(text: str) -> range:
    """Parse ``A..B``, without B, or ``A``."""
    first, dots, stop = text.partition("..")
    try:
        seeds = range(int(first), int(stop) if dots else int(first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a seed nor a range of seeds: write A..B, or A") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text} is empty: A must be less than B")
    return seeds


def parse_jobs(text: str) -> int:
    """Parse a number of processes."""
    if not text.isdecimal() or not 1 <= int(text) <= JOBS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {JOBS_MAX}")
    return int(text)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in a worker; the first process ends all workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def print_failure(outcome: Outcome) -> None:
    """Print a failed run: the rule, the end of the trace, and how to repeat it."""
    print(f"\nseed {outcome.seed}: {outcome.kind}: {outcome.text}")
    print(f"faults: {dict(outcome.faults) or 'none'}; {outcome.seconds:.3f} s of virtual time")
    print("\n".join(f"  {line}" for line in outcome.lines))
    print(f"replay: scripts/sim --seeds {outcome.seed}", flush=True)


def main() -> int:
    """Run the seeds of the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=parse_seeds, required=True, metavar="A..B", help="run the seeds A to B-1; or just A"
    )
    parser.add_argument("--jobs", type=parse_jobs, default=os.cpu_count(), metavar="N", help="number of processes")
    parser.add_argument("--trace", action="store_true", help="print the digest of each run's trace")
    arguments = parser.parse_args()

    kinds: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    virtual_seconds, began = 0.0, time.monotonic()
    with multiprocessing.Pool(arguments.jobs, ignore_interrupts) as pool:
        for outcome in pool.imap(run_seed, arguments.seeds, chunksize=4):
            kinds[outcome.kind] += 1
            faults.update(outcome.faults)
            virtual_seconds += outcome.seconds
            if arguments.trace:
                print(outcome.seed, outcome.kind, outcome.digest, flush=True)
            if outcome.kind != "ok" and sum(kinds.values()) - kinds["ok"] <= SHOWN_MAX:
                print_failure(outcome)
    print(
        f"{sum(kinds.values())} seeds, {virtual_seconds / 3600:.1f} hours of virtual time in"
        f" {time.monotonic() - began:.0f} s; {dict(kinds)}; faults: {dict(faults.most_common())}"
    )
    return EXIT_CODES[max(kinds, key=GRAVITY.index, default="ok")]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the final flush would fail otherwise
        sys.exit(1)
