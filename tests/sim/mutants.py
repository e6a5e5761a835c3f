"""Mutants: bugs that are put into the code one at a time. The simulator must find each of them.

``scripts/mutants`` runs all of them; ``test_mutants.py`` runs those that the first seeds find.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pspd.core.cache.cache import Cache
from pspd.core.client.download import Download
from pspd.core.client.machine import ClientMachine
from pspd.core.model.holdings import Holdings
from pspd.core.model.manifest import Manifest
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.availability import Availability
from pspd.core.server.broadcasts import Broadcasts
from pspd.core.server.contributions import Contributions
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.demand import Demand
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.holders import HolderSelector
from pspd.core.server.lifecycle import Lifecycle
from pspd.core.server.machine import ServerMachine
from pspd.core.server.pending import Pending
from pspd.core.server.recipients import Recipients
from pspd.core.server.request_state import RequestState
from pspd.core.server.sessions import Sessions
from pspd.core.server.share_monitor import ShareMonitor
from pspd.core.server.shares import Shares
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason
from pspd.sim.scenario import Outcome, run_seed
from pspd.store.files.verifier import FileVerifier
from tests.sim.contradiction import Contradiction
from tests.sim.idle_owner import IdleOwner
from tests.sim.test_found import LONG_BATCHES, waiting_requests_skip_the_cache

SEEDS = 1000
"""The number of seeds that are tried for a mutant."""
LIVENESS_NS = 1800 * SECOND_NS

Mutate = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        module: the module that the bug changes.
        bug: the bug in words.
        mutate: a function that puts the bug into the code.
        rules: the rules and exceptions that may find the bug, besides assertions of invariants.
        is_quick: whether the first seeds find the bug.
        tuning: the server's tunables.
    """

    module: str
    bug: str
    mutate: Mutate
    rules: set[str]
    is_quick: bool = True
    tuning: ServerTuning = SERVER_TUNING


def replaced(owner: type, name: str, body: Any) -> Mutate:
    """Return a mutation that replaces a method or property.

    Args:
        owner: the class.
        name: the name of the method or property.
        body: the function or property that replaces it.
    """
    return lambda patch: patch.setattr(owner, name, body)


def cache_unsolicited(patch: pytest.MonkeyPatch) -> None:
    """Cache unsolicited contributions."""
    accept_solicited = Pending.accept

    def accept(self: Any, member: Any, file: Any, frame: Frame, now: int) -> Any:
        taken = accept_solicited(self, member, file, frame, now)
        fetches = self.table_of(file.file_id).fetches
        if taken is DropReason.UNSOLICITED and not fetches.overlapping(frame.start, frame.stop):
            if self._cache.cached(file.file_id, frame.start, frame.stop):
                return taken
            if self._cache.reserve(file.file_id, frame.start, frame.stop):
                fetch = self.start(file, Range(frame.start, frame.stop), None)
                del self.broadcast_queue[fetch]
                fetch.tries, fetch.sender_session = 1, member.session
                self.set_receive_timer(fetch, now)
                return fetch
        return taken

    patch.setattr(Pending, "accept", accept)


def deliver_to_one_waiter(patch: pytest.MonkeyPatch) -> None:
    """Deliver received chunks only to the first client that waits for them."""
    flush = Deliveries.flush

    def to_the_first(self: Any, file: Any) -> int:
        demand = self._demand.of_file(file.file_id)
        wanting = demand.wanting
        demand.wanting = dict.fromkeys(list(wanting)[:1])
        delivery_count = flush(self, file)
        demand.wanting = {state: None for state in wanting if state.wanted}
        return delivery_count

    patch.setattr(Deliveries, "flush", to_the_first)


def overlapping_shares(patch: pytest.MonkeyPatch) -> None:
    """Extend each share by a chunk of the next."""
    share = Manifest.share

    def wider(self: Any, index: int) -> Range:
        start, stop = share(self, index)
        return Range(start, min(stop + 1, self.chunk_count))

    patch.setattr(Manifest, "share", wider)


def verify_one_unit(patch: pytest.MonkeyPatch) -> None:
    """Verify only the first unit of a contribution."""
    is_correct = Contributions.is_correct

    def first_is_correct(self: Any, file: Any, units: Range) -> bool:
        first = next((unit for unit, _ in file.manifest.units(*units)), units)
        return is_correct(self, file, first)

    patch.setattr(Contributions, "is_correct", first_is_correct)


def ask_only_owners(self: Any, file: Any, chunk: int) -> Any:
    """Replace the choice of a holder by the owner of the share."""
    owners = self.able_to_send([file.shares.at(chunk).owner], file, chunk, chunk + 1)
    return next(iter(owners), None)


def ask_every_member(self: Any, names: Any, file: Any, start: int, stop: int) -> Any:
    """Replace the choice of members that hold a range by all members."""
    members = self._sessions.members
    return [self._pending.holder_of(members[name]) for name in names if name in members]


def keep_lost_clients(patch: pytest.MonkeyPatch) -> None:
    """Ignore the loss of clients."""
    end_session = ServerMachine._end_session

    def end_sources(self: Any, member: Any, *why: Any) -> None:
        if member.is_source:
            end_session(self, member, *why)

    patch.setattr(ServerMachine, "_end_session", end_sources)


def hold_broadcasts(patch: pytest.MonkeyPatch) -> None:
    """Send no broadcast, and set no timer for one."""
    patch.setattr(Broadcasts, "send", lambda self, now: None)
    patch.setattr(Broadcasts, "next_timeout", lambda self: None)


MUTANTS = [
    Mutant(
        "broadcasts",
        "a lost broadcast is not sent again",
        replaced(Broadcasts, "_prepare_retry", lambda self, fetch: []),
        {"liveness"},
    ),
    Mutant(
        "client",
        "requests are not repeated",
        replaced(ClientMachine, "handle_timeout", lambda self, now: list(self._timers.expired(now))),
        {"liveness"},
    ),
    Mutant(
        "pending",
        "unsolicited contributions are cached",
        cache_unsolicited,
        {"R9 unsolicited"},
        is_quick=False,
    ),
    Mutant(
        "deliveries", "only the first waiting client gets a delivery", deliver_to_one_waiter, {"R9 waiters are served"}
    ),
    Mutant(
        "deliveries",
        "cached chunks are fetched",
        replaced(Deliveries, "deliver_cached", lambda self, state: None),
        {"R9 waiters are served", "R7 miss"},
    ),
    Mutant(
        "shares",
        "the share of a client that left counts as held",
        replaced(Shares, "clear_acks", lambda self, name: None),
        {"no silent loss", "R2 every share is held", "liveness"},
        is_quick=False,
    ),
    Mutant(
        "shares",
        "every share counts as held at once",
        replaced(Shares, "all_held", property(lambda self: True)),
        {"R2 every share is held", "R2 the server forgets"},
    ),
    Mutant(
        "forwarder",
        "the server does not forget a seeded file",
        replaced(Forwarder, "drain", lambda self, file: 0),
        {"R2 the server forgets"},
    ),
    Mutant("manifest", "shares overlap", overlapping_shares, {"R1 division"}),
    Mutant(
        "contributions",
        "the server verifies no digest",
        replaced(Contributions, "is_correct", lambda self, file, units: True),
        {"R9 first good copy"},
    ),
    Mutant(
        "client",
        "clients verify no digest",
        replaced(Holdings, "mark_corrupt", Holdings.mark_verified),
        {"R10 done", "R10 verified", "R9 first good copy", "IntegrityError"},
    ),
    Mutant(
        "client",
        "a client sends chunks that it does not hold",
        replaced(RangeSet, "covers", lambda self, start, stop: True),
        {
            "R8 holders",
            "R2 every share is held",
            "R10 done",
            "InternalError",
            "IndexError",
            "liveness",
        },
    ),
    Mutant(
        "client",
        "a client counts a file as complete too early",
        replaced(Download, "is_whole", property(lambda self: self.verified.chunk_count > 0)),
        {"liveness", "R10 done", "R12 one identity"},
    ),
    Mutant(
        "lifecycle",
        "the server does not notice that a file is stalled",
        replaced(Lifecycle, "_review_stall", lambda self, file: None),
        {"no silent loss", "liveness"},
        is_quick=False,
    ),
    Mutant(
        "sessions",
        "clients are never lost",
        keep_lost_clients,
        {
            "liveness",
            "NameTaken",
            "KeyError",
            "no silent loss",
            "R2 every share is held",
            "R12 recipients",
        },
    ),
    Mutant(
        "cache",
        "the cache grows beyond its size",
        replaced(Cache, "has_room", lambda self, count: True),
        {"R4 cache"},
    ),
    Mutant(
        "shares",
        "the share of a client that left is not reassigned",
        replaced(Shares, "reassign", lambda self, keep, preferred: []),
        {"liveness"},
    ),
    Mutant(
        "forwarder",
        "chunks that wait to be delivered are fetched a second time",
        waiting_requests_skip_the_cache,
        set(),
        tuning=LONG_BATCHES,
    ),
    Mutant(
        "deliveries",
        "received chunks are not delivered",
        replaced(Deliveries, "deliver_fetched", lambda self, fetch, now: None),
        {"R9 waiters are served", "liveness"},
    ),
    Mutant(
        "sessions",
        "a request number may jump",
        replaced(Sessions, "note_request_number", lambda self, member, number: None),
        {"liveness"},
    ),
    Mutant(
        "sessions",
        "two machines of one identity replace each other",
        replaced(Sessions, "_refuse_duplicate", lambda self, present, peer, now: None),
        {"R12 one identity"},
        is_quick=False,
    ),
    Mutant(
        "recipients",
        "a client that returns is still reported as missing",
        replaced(Recipients, "mark_present", lambda self, name: None),
        {"R12 recipients"},
    ),
    Mutant(
        "broadcasts",
        "a broadcast that waits for its batch is not sent",
        hold_broadcasts,
        {"liveness"},
    ),
    Mutant(
        "lifecycle",
        "the exchange does not start",
        replaced(Lifecycle, "_start_exchange", lambda self, file: None),
        {"liveness"},
    ),
    Mutant(
        "lifecycle",
        "a file never counts as complete",
        replaced(Lifecycle, "_review_completion", lambda self, file: None),
        {"liveness"},
    ),
    Mutant(
        "availability",
        "chunks of a lost holder stay available",
        replaced(Availability, "_remove_available", lambda self, held: None),
        {"no silent loss", "liveness"},
        is_quick=False,
    ),
    Mutant(
        "availability",
        "sources do not count as holders",
        replaced(Availability, "add_whole_file", lambda self, name: self.add_arrived(name, ())),
        {"liveness"},
    ),
    Mutant(
        "demand",
        "acknowledgements are ignored",
        replaced(RequestState, "acknowledge", lambda self, number, is_rest_lost: []),
        {"liveness"},
    ),
    Mutant(
        "demand",
        "new requests are not served",
        replaced(Demand, "mark_ready", lambda self, state: None),
        {"liveness", "R9 waiters are served"},
    ),
    Mutant(
        "pending",
        "an aborted contribution is not fetched again",
        replaced(Pending, "schedule_retry", lambda self, fetch, now: None),
        {"liveness"},
    ),
    Mutant(
        "pending",
        "an abandoned fetch keeps its room in the cache",
        replaced(Pending, "abandon", lambda self, fetch: self._end(fetch)),
        {"liveness"},
    ),
    Mutant(
        "holders",
        "only the owner of a share is asked",
        replaced(HolderSelector, "_choose", ask_only_owners),
        {"liveness"},
    ),
    Mutant(
        "holders",
        "members are asked for chunks that they do not hold",
        replaced(HolderSelector, "able_to_send", ask_every_member),
        {"IndexError", "liveness"},
    ),
    Mutant(
        "broadcasts",
        "overdue fetches are forgotten",
        replaced(Broadcasts, "handle_timeout", lambda self, now: [*self._pending.expired(now), self.send(now)]),
        {"liveness"},
    ),
    Mutant(
        "broadcasts",
        "broadcasts reach only the first member",
        replaced(Broadcasts, "_receivers", lambda self, file, fetches: list(self._sessions.members.values())[:1]),
        {"liveness"},
    ),
    Mutant(
        "contributions",
        "the server verifies only the first unit",
        verify_one_unit,
        {"R9 first good copy"},
        is_quick=False,
    ),
    Mutant(
        "contributions",
        "aborted contributions are not noted",
        replaced(Contributions, "abort", lambda self, reception, now: None),
        {"liveness"},
        is_quick=False,
    ),
    Mutant(
        "contributions",
        "received contributions are not noted",
        replaced(Contributions, "finish", lambda self, reception, now: False),
        {"liveness"},
    ),
    Mutant(
        "lifecycle",
        "shares stay with clients that left",
        replaced(Lifecycle, "_reassign_orphaned", lambda self, file: []),
        {"liveness"},
    ),
    Mutant(
        "lifecycle",
        "clients are not told of their shares",
        replaced(Lifecycle, "_send_assignments", lambda self, file, names: None),
        {"liveness"},
    ),
    Mutant(
        "recipients",
        "reports of complete files are ignored",
        replaced(Recipients, "mark_complete", lambda self, name: None),
        {"liveness"},
    ),
    Mutant(
        "cache",
        "pinned chunks are evicted",
        replaced(Cache, "pin", lambda self, file_id, start, stop: None),
        set(),
    ),
]


def accept_contradictions(self: FileVerifier, block: Range) -> None:
    """Replace the check for contradictory digests."""


def find_all_owners_progressing(patch: pytest.MonkeyPatch) -> None:
    """Take snapshots of owners, but find none of them without progress."""
    take_snapshots = ShareMonitor._take_snapshots

    def find_none(self: Any, file: Any, before: Any, now: int) -> list[str]:
        take_snapshots(self, file, before, now)
        return []

    patch.setattr(ShareMonitor, "_take_snapshots", find_none)


def no_pause(patch: pytest.MonkeyPatch) -> None:
    """Request refuted units again at once."""
    patch.setattr(FileVerifier, "_raise_if_contradictory", accept_contradictions)
    patch.setattr(Download, "corrupt_pause_ns", property(lambda self: 0))


@dataclass(frozen=True)
class CaseMutant:
    """A bug that shows only in a special network.

    Attributes:
        module: the module that the bug changes.
        bug: the bug in words.
        mutate: a function that puts the bug into the code.
        run: a function that runs the network, and must raise an exception.
    """

    module: str
    bug: str
    mutate: Mutate
    run: Callable[[], None]


CASE_MUTANTS = [
    CaseMutant(
        "client",
        "contradictory digests are not declined",
        replaced(FileVerifier, "_raise_if_contradictory", accept_contradictions),
        lambda: Contradiction().run(),
    ),
    CaseMutant(
        "client",
        "a client requests a file that it declined",
        replaced(ClientMachine, "file_dropped", lambda self, file_id: None),
        lambda: Contradiction().run(),
    ),
    CaseMutant(
        "client",
        "refuted units are requested without a pause",
        no_pause,
        lambda: Contradiction().require_few_requests(),
    ),
    CaseMutant("share_monitor", "every owner makes progress", find_all_owners_progressing, lambda: IdleOwner().run()),
    CaseMutant(
        "share_monitor",
        "owners are compared only once",
        replaced(ShareMonitor, "next_timeout", lambda self: None),
        lambda: IdleOwner().run(),
    ),
]


def is_found(mutant: Mutant, outcome: Outcome | None) -> bool:
    """Return whether an outcome shows the bug: by one of the mutant's rules, or by an assertion."""
    return outcome is not None and (outcome.rule in mutant.rules or outcome.rule == "AssertionError")


def first_failure(mutant: Mutant, seed_count: int) -> Outcome | None:
    """Run a mutant until a seed fails.

    Args:
        mutant: the mutant.
        seed_count: the number of seeds to try.

    Returns:
        The first outcome that is not ok; None if there is none.
    """
    with pytest.MonkeyPatch.context() as patch:
        mutant.mutate(patch)
        outcomes = (run_seed(seed, LIVENESS_NS, mutant.tuning) for seed in range(seed_count))
        return next((outcome for outcome in outcomes if outcome.kind != "ok"), None)


def case_failure(mutant: CaseMutant) -> Exception | None:
    """Run a mutant in its network; return the exception that the run raised, or None."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.mutate(patch)
        try:
            mutant.run()
        except Exception as error:
            return error
    return None


def main() -> int:
    """Run every mutant, and print which seed and rule found it; return 1 if one was not found."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="number of seeds to try for a mutant")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only mutants whose module or bug contains TEXT")
    arguments = parser.parse_args()
    missed = 0
    for mutant in MUTANTS:
        if arguments.only not in f"{mutant.module}: {mutant.bug}":
            continue
        outcome = first_failure(mutant, arguments.seeds)
        found = is_found(mutant, outcome)
        missed += not found
        how = f"seed {outcome.seed}: {outcome.kind}: {outcome.rule}" if outcome else f"not in {arguments.seeds} seeds"
        print(f"{'' if found else 'MISSED '}{mutant.module}: {mutant.bug}: {how}", flush=True)
    for case in CASE_MUTANTS:
        if arguments.only in f"{case.module}: {case.bug}":
            error = case_failure(case)
            missed += error is None
            how = f"{type(error).__name__}: {str(error)[:80]}" if error else "not found"
            print(f"{'' if error else 'MISSED '}{case.module}: {case.bug}: {how}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
