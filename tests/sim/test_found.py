"""Bugs that the simulator found in the core, each with the seed that shows it once the bug is put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pspd.core.client.download import Download
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.model.storage import Written
from pspd.core.server import deliveries
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.forwarder import Relay
from pspd.core.server.members import Interest
from pspd.core.server.pending import Fetch
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing import rtt as rto
from pspd.core.wire.frames import Frame
from pspd.sim.scenario import run_seed

LIVENESS_NS = 600 * SECOND_NS

PutBack = Callable[[pytest.MonkeyPatch], None]


def long_batches(patch: pytest.MonkeyPatch) -> None:
    """Let deliveries wait long for their batch."""
    patch.setattr(deliveries, "HANDING_OUT_NS_PER_DELIVERY", 30 * MILLISECOND_NS)


def waiting_requests_skip_the_cache(patch: pytest.MonkeyPatch) -> None:
    """Fetch chunks a second time that wait in a batch; the server fails."""
    long_batches(patch)
    hit, hit_or_fetch = Deliveries.hit, Relay._hit_or_fetch

    def unless_waiting(self: Relay, interest: Interest) -> bool:
        is_waiting = interest in self._blocked.get(interest.file, ())
        patch.setattr(Deliveries, "hit", (lambda self, interest: None) if is_waiting else hit)
        return hit_or_fetch(self, interest)

    patch.setattr(Relay, "_hit_or_fetch", unless_waiting)


def sources_count_as_holders(patch: pytest.MonkeyPatch) -> None:
    """Let two sources that repair a file take each other for its holders, and leave."""
    count = SharedFile.min_holder_count

    def with_sources(self: SharedFile) -> int:
        lenders, self.lenders = self.lenders, {}
        try:
            return count(self)
        finally:
            self.lenders = lenders

    patch.setattr(SharedFile, "min_holder_count", with_sources)


def returning_members_are_not_served(patch: pytest.MonkeyPatch) -> None:
    """Ignore the earlier requests of a member whose link is up again."""
    patch.setattr(Relay, "reached", lambda self, member: None)


def late_answers_postpone_requests(patch: pytest.MonkeyPatch) -> None:
    """Tell a client to wait for chunks that it has just received; it waits for minutes."""
    note_delivery, note_ack = Download.note_delivery, Download.note_ack

    def never_all(self: Download, frame: Frame, written: Written, now: int) -> bool:
        self._outstanding.add(self.manifest.chunk_count, self.manifest.chunk_count + 1)
        return note_delivery(self, frame, written, now) or not self.wanted()

    patch.setattr(Download, "note_ack", lambda self, number, _: note_ack(self, number, 120 * SECOND_NS))
    patch.setattr(Download, "note_delivery", never_all)
    patch.setattr(Download, "timeout_ns", lambda self: self._retry_after_ns or self.rtt.timeout_ns(self._random))


def timeout_is_unbounded(patch: pytest.MonkeyPatch) -> None:
    """Let a client that received nothing for minutes take that time for a round trip."""
    patch.setattr(rto, "RTO_MAX_NS", 240 * SECOND_NS)


def stragglers_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Abandon chunks that only a straggler waits for at the first timeout."""
    patch.setattr(Fetch, "is_wanted", property(lambda self: self.file.is_wanted(self.start, self.stop)))


FOUND: list[Any] = [
    pytest.param(16, late_answers_postpone_requests, "AssertionError", id="late-answer"),
    pytest.param(10, waiting_requests_skip_the_cache, "AssertionError", id="fetched-twice"),
    pytest.param(156, sources_count_as_holders, "liveness", id="two-sources"),
    pytest.param(23, returning_members_are_not_served, "R9 handed to who waits", id="link-is-back"),
    pytest.param(979, stragglers_are_ignored, "liveness", id="straggler"),
    pytest.param(99, timeout_is_unbounded, "liveness", id="timeout"),
]


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_seed_is_ok(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    if put_back is waiting_requests_skip_the_cache:
        long_batches(monkeypatch)
    outcome = run_seed(seed, LIVENESS_NS)
    assert outcome.kind == "ok", outcome.text


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_seed_finds_the_bug(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    put_back(monkeypatch)
    assert run_seed(seed, LIVENESS_NS).rule == rule
