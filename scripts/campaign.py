"""Runs simulated networks, one for each seed, and tells of every rule that was broken; ``scripts/sim`` starts it.

Each seed draws a network, files, faults and how they heal; a seed always gives the same run. Ends with
0 if all went well, 3 if a rule of safety was broken, 4 if something did not end (liveness), 5 if the
code failed; if several, with the gravest: 5, then 3, then 4.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter

from pspd.sim.scenario import Outcome, run_seed

EXIT_CODES = {"ok": 0, "liveness": 4, "safety": 3, "crash": 5}
GRAVITY = list(EXIT_CODES)

SHOWN_MAX = 5


def seeds_of(text: str) -> range:
    """The seeds that ``A..B`` names, B not among them; or the one that ``A`` names."""
    first, _, stop = text.partition("..")
    return range(int(first), int(stop) if stop else int(first) + 1)


def show(outcome: Outcome) -> None:
    """Tells of a run that went wrong: the rule, what came before, and how to see it again."""
    print(f"\nseed {outcome.seed}: {outcome.kind}: {outcome.text}")
    print(f"faults: {dict(outcome.faults) or 'none'}; {outcome.seconds:.3f} s of virtual time")
    print("\n".join(f"  {line}" for line in outcome.lines))
    print(f"replay: scripts/sim --seeds {outcome.seed}", flush=True)


def main() -> int:
    """Runs the seeds that the command line names."""
    parser = argparse.ArgumentParser(
        prog="scripts/sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=seeds_of, required=True, metavar="A..B", help="run the seeds A to B-1; or just A"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="run so many at a time")
    parser.add_argument("--trace", action="store_true", help="print the digest of each run's trace")
    arguments = parser.parse_args()

    kinds: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    virtual_seconds, began = 0.0, time.monotonic()
    with multiprocessing.Pool(arguments.jobs) as pool:
        for outcome in pool.imap(run_seed, arguments.seeds, chunksize=4):
            kinds[outcome.kind] += 1
            faults.update(outcome.faults)
            virtual_seconds += outcome.seconds
            if arguments.trace:
                print(outcome.seed, outcome.kind, outcome.digest, flush=True)
            if outcome.kind != "ok" and sum(kinds.values()) - kinds["ok"] <= SHOWN_MAX:
                show(outcome)
    print(
        f"{sum(kinds.values())} seeds, {virtual_seconds / 3600:.1f} hours of virtual time in"
        f" {time.monotonic() - began:.0f} s; {dict(kinds)}; faults: {dict(faults.most_common())}"
    )
    return EXIT_CODES[max(kinds, key=GRAVITY.index, default="ok")]


if __name__ == "__main__":
    sys.exit(main())
