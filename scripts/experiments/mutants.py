"""Deliberate faults, put into the code one at a time: the simulator must find each, and say which rule it breaks.

Run it with ``.venv/bin/python -m scripts.experiments.mutants``; it prints the seed and the rule by which each was
found, and ends with 1 if one was not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from pspd.core.cache.cache import Cache
from pspd.core.client.download import Download
from pspd.core.client.machine import ClientMachine
from pspd.core.model.holdings import Holdings
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.server.catalogue import Catalogue
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.fetching import Fetching
from pspd.core.server.forwarder import Relay
from pspd.core.server.machine import ServerMachine
from pspd.core.server.recipients import Recipients
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason
from pspd.sim import scenario
from pspd.sim.scenario import run_seed
from pspd.store.files.verifier import BlockVerifier
from tests.sim.contradiction import Contradiction
from tests.sim.test_found import who_is_in_line_is_not_looked_up_in_the_cache

SEEDS = 1000
"""How many seeds a fault may stay hidden for."""

Mutate = Callable[[pytest.MonkeyPatch], None]


def replaced(owner: type, name: str, body: Any) -> Mutate:
    """A mutant with another method or property in the place of one."""
    return lambda patch: patch.setattr(owner, name, body)


def cache_the_unasked(patch: pytest.MonkeyPatch) -> None:
    started = Fetching.contribution_started

    def accept(self: Any, member: Any, file: Any, frame: Frame, now: int) -> Any:
        taken = started(self, member, file, frame, now)
        if taken is DropReason.UNSOLICITED and not file.fetches.overlapping(frame.start, frame.stop):
            if self._cache.cached(file.file_id, frame.start, frame.stop):
                return taken
            if self._cache.reserve(file.file_id, frame.start, frame.stop):
                fetch = self.start(file, Range(frame.start, frame.stop), None)
                del self._unasked[fetch]
                fetch.tries, fetch.sender = 1, member.session
                return self._cache.views(file.file_id, frame.start, frame.stop, frame.length)
        return taken

    patch.setattr(Fetching, "contribution_started", accept)


def one_waiter_alone(patch: pytest.MonkeyPatch) -> None:
    hand_out = Deliveries.hand_out

    def to_the_first(self: Any, file: Any) -> int:
        waiting = file.waiting
        file.waiting = dict.fromkeys(list(waiting)[:1])
        delivery_count = hand_out(self, file)
        file.waiting = waiting
        return delivery_count

    patch.setattr(Deliveries, "hand_out", to_the_first)


def overlapping_shares(patch: pytest.MonkeyPatch) -> None:
    share = Manifest.share

    def wider(self: Any, index: int) -> Range:
        start, stop = share(self, index)
        return Range(start, min(stop + 1, self.chunk_count))

    patch.setattr(Manifest, "share", wider)


def clients_are_never_lost(patch: pytest.MonkeyPatch) -> None:
    lose = ServerMachine._lose

    def lose_sources(self: Any, member: Any, *why: Any) -> None:
        if member.source:
            lose(self, member, *why)

    patch.setattr(ServerMachine, "_lose", lose_sources)


MUTANTS: dict[str, tuple[Mutate, set[str]]] = {
    "what was lost is not broadcast again": (
        replaced(Fetching, "_ask_otherwise", lambda self, fetch: []),
        {"liveness"},
    ),
    "requests are not repeated": (
        replaced(ClientMachine, "handle_timeout", lambda self, now: list(self._timers.expired(now))),
        {"liveness"},
    ),
    "what nobody asked for is cached": (cache_the_unasked, {"R9 only what was asked"}),
    "only the first who waits is answered": (one_waiter_alone, {"R9 handed to who waits"}),
    "what is cached is fetched all the same": (
        replaced(Deliveries, "hit", lambda self, interest: None),
        {"R9 handed to who waits", "R7 miss", "AssertionError"},
    ),
    "a share that was lost counts as held": (
        replaced(SharedFile, "loosen_shares", lambda self, name: None),
        {"no silent loss", "R2 every share is held", "liveness"},
    ),
    "every share counts as held at once": (
        replaced(SharedFile, "shares_are_held", property(lambda self: True)),
        {"R2 every share is held", "R2 the server forgets"},
    ),
    "the server does not forget": (
        replaced(Relay, "forget", lambda self, file, now: 0),
        {"R2 the server forgets"},
    ),
    "shares overlap": (overlapping_shares, {"R1 division", "AssertionError"}),
    "the server takes no digest": (
        replaced(Fetching, "_are_good", lambda self, file, frame: True),
        {"R9 first good copy"},
    ),
    "a client takes no digest": (
        replaced(Holdings, "refute", Holdings.confirm),
        {"R10 done", "R10 verified", "R9 first good copy", "IntegrityError"},
    ),
    "a client sends what it has not": (
        replaced(RangeSet, "covers", lambda self, start, stop: True),
        {
            "R8 holders",
            "R2 every share is held",
            "R10 done",
            "InternalError",
            "AssertionError",
            "IndexError",
            "liveness",
        },
    ),
    "a client is done too early": (
        replaced(Download, "is_whole", property(lambda self: self.verified.chunk_count > 0)),
        {"liveness", "R10 done", "R12 one identity"},  # it verifies and joins again, each time
    ),
    "nobody is told that a file is stalled": (
        replaced(Catalogue, "_review_coverage", lambda self, file: None),
        {"no silent loss", "liveness"},
    ),
    "clients are never lost": (
        clients_are_never_lost,
        {
            "liveness",
            "NameTaken",
            "AssertionError",
            "KeyError",
            "no silent loss",
            "R2 every share is held",
            "R12 recipients",
        },
    ),
    "the cache grows": (
        replaced(Cache, "has_room", lambda self, count: True),
        {"R4 cache", "AssertionError"},
    ),
    "a lost client's share is given to nobody": (
        replaced(SharedFile, "reassign", lambda self, names, preferred: []),
        {"liveness"},
    ),
    "what is gathered is fetched a second time": (
        who_is_in_line_is_not_looked_up_in_the_cache,
        {"AssertionError"},
    ),
    "what has come is gathered and not handed out": (
        replaced(Relay, "received", lambda self, fetch, now: None),
        {"R9 handed to who waits", "liveness"},
    ),
    "a request number may jump": (
        lambda patch: patch.setattr("pspd.core.server.members.REQUEST_JUMP_MAX", 2**32),
        {"liveness"},
    ),
    "two machines of one identity take turns": (
        replaced(ServerMachine, "_refuse_duplicate", lambda self, present, peer, now: None),
        {"R12 one identity"},
    ),
    "a client that returns is still told to be missing": (
        replaced(Recipients, "is_here", lambda self, name: None),
        {"R12 recipients"},
    ),
    "a broadcast that was gathered is not sent": (
        replaced(Fetching, "_ask_due", property(lambda self: 10**18)),
        {"liveness"},
    ),
}


def never_contradicting(self: BlockVerifier, block: Range) -> None:
    """Takes no contradiction for proved."""


def no_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockVerifier, "_refuse_contradiction", never_contradicting)
    patch.setattr(Download, "refuted_pause_ns", property(lambda self: 0))


CONTRADICTION_MUTANTS: dict[str, tuple[Mutate, Callable[[Contradiction], None]]] = {
    "contradictory digests are not declined": (
        replaced(BlockVerifier, "_refuse_contradiction", never_contradicting),
        Contradiction.run,
    ),
    "a client that declined asks again": (
        replaced(ClientMachine, "file_dropped", lambda self, file_id: None),
        Contradiction.run,
    ),
    "refuted units are asked for without a pause": (no_pause, Contradiction.require_few_requests),
}
"""Faults that take a source with contradictory digests to be seen: its run must fail."""


def missed_contradiction_mutants() -> int:
    """Tries each of those; returns how many no run found."""
    missed = 0
    for name, (mutate, run) in CONTRADICTION_MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            try:
                run(Contradiction())
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error)[:80]}", flush=True)
            else:
                missed += 1
                print(f"MISSED {name}", flush=True)
    return missed


def main() -> int:
    """Tries each mutant until a seed finds it."""
    missed = missed_contradiction_mutants()
    scenario.LIVENESS_NS = 1800 * SECOND_NS
    for name, (mutate, rules) in MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch)
            outcome = next((found for found in map(run_seed, range(SEEDS)) if found.kind != "ok"), None)
        found = outcome is not None and outcome.rule in rules
        missed += not found
        how = f"seed {outcome.seed}: {outcome.kind}: {outcome.rule}" if outcome else f"not in {SEEDS} seeds"
        print(f"{'' if found else 'MISSED '}{name}: {how}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
