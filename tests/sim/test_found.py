"""Bugs that the simulator found in the core, each with the seed that shows it once the bug is put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pspd.core.client.download import Download
from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.model.storage import WriteResult
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.core.server.availability import Availability
from pspd.core.server.deliveries import Deliveries
from pspd.core.server.demand import Demand
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.request_state import FileDemand, RequestState
from pspd.core.timing import rtt as rto
from pspd.core.wire.frames import Frame
from pspd.sim.scenario import run_seed

LIVENESS_NS = 600 * SECOND_NS

PutBack = Callable[[pytest.MonkeyPatch], None]


LONG_BATCHES = replace(SERVER_TUNING, delivery_pacing_ns=30 * MILLISECOND_NS)
"""Deliveries wait long for their batch."""


def waiting_requests_skip_the_cache(patch: pytest.MonkeyPatch) -> None:
    """Fetch chunks that wait in a batch a second time; the server fails."""
    deliver_cached, hit_or_fetch = Deliveries.deliver_cached, Forwarder._hit_or_fetch

    def unless_waiting(self: Forwarder, state: RequestState) -> bool:
        is_waiting = state in self._queues.get(state.file.file_id, ())
        patch.setattr(Deliveries, "deliver_cached", (lambda self, state: None) if is_waiting else deliver_cached)
        return hit_or_fetch(self, state)

    patch.setattr(Forwarder, "_hit_or_fetch", unless_waiting)


def sources_count_as_holders(patch: pytest.MonkeyPatch) -> None:
    """Count sources as holders: two sources of one file both leave."""
    count = Availability.min_holder_count

    def with_sources(self: Availability) -> int:
        sources, self.sources = self.sources, {}
        try:
            return count(self)
        finally:
            self.sources = sources

    patch.setattr(Availability, "min_holder_count", with_sources)


def returning_members_are_not_served(patch: pytest.MonkeyPatch) -> None:
    """Ignore earlier requests of a member that has opened its link again."""
    first = Demand.mark_ready_first
    patch.setattr(
        Demand, "mark_ready_first", lambda self, file_ids, sessions: first(self, file_ids, list(sessions)[:0])
    )


def late_answers_postpone_requests(patch: pytest.MonkeyPatch) -> None:
    """Tell a client to wait for chunks that it has just received; it waits for minutes."""
    note_delivery, note_ack = Download.note_delivery, Download.note_ack

    def never_all(self: Download, frame: Frame, written: WriteResult, now: int) -> bool:
        self._outstanding.add(self.manifest.chunk_count, self.manifest.chunk_count + 1)
        return note_delivery(self, frame, written, now) or not self.wanted()

    patch.setattr(Download, "note_ack", lambda self, number, _: note_ack(self, number, 120 * SECOND_NS))
    patch.setattr(Download, "note_delivery", never_all)
    patch.setattr(Download, "timeout_ns", lambda self: self._retry_after_ns or self.rtt.timeout_ns(self._random))


def timeout_is_unbounded(patch: pytest.MonkeyPatch) -> None:
    """Let a client measure minutes without a delivery as one round trip."""
    patch.setattr(rto, "RTO_MAX_NS", 240 * SECOND_NS)


def stragglers_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Abandon chunks that only a straggler waits for at the first timeout."""
    patch.setattr(FileDemand, "is_wanted_by_any", FileDemand.is_wanted)


FOUND: list[Any] = [
    pytest.param(16, late_answers_postpone_requests, "AssertionError", id="late-answer"),
    pytest.param(10, waiting_requests_skip_the_cache, "AssertionError", id="fetched-twice"),
    pytest.param(156, sources_count_as_holders, "liveness", id="two-sources"),
    pytest.param(23, returning_members_are_not_served, "R9 waiters are served", id="link-is-back"),
    pytest.param(979, stragglers_are_ignored, "liveness", id="straggler"),
    pytest.param(99, timeout_is_unbounded, "liveness", id="timeout"),
]


def tuning_of(put_back: PutBack) -> ServerTuning:
    return LONG_BATCHES if put_back is waiting_requests_skip_the_cache else SERVER_TUNING


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_seed_is_ok(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    outcome = run_seed(seed, LIVENESS_NS, tuning_of(put_back))
    assert outcome.kind == "ok", outcome.text


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_seed_finds_the_bug(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    put_back(monkeypatch)
    assert run_seed(seed, LIVENESS_NS, tuning_of(put_back)).rule == rule
