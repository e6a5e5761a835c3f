"""Faults that the simulator found in the core: each with the seed that shows it, once the fault is put back."""

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
from pspd.sim import scenario
from pspd.sim.scenario import run_seed

PutBack = Callable[[pytest.MonkeyPatch], None]


def slow_gathering(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deliveries, "HANDING_OUT_NS_PER_DELIVERY", 30 * MILLISECOND_NS)


def who_is_in_line_is_not_looked_up_in_the_cache(patch: pytest.MonkeyPatch) -> None:
    """What was gathered was fetched a second time, and the server failed."""
    slow_gathering(patch)
    hit, hit_or_fetch = Deliveries.hit, Relay._hit_or_fetch

    def unless_in_line(self: Relay, interest: Interest) -> bool:
        is_in_line = interest in self._blocked.get(interest.file, ())
        patch.setattr(Deliveries, "hit", (lambda self, interest: None) if is_in_line else hit)
        return hit_or_fetch(self, interest)

    patch.setattr(Relay, "_hit_or_fetch", unless_in_line)


def sources_count_as_holders(patch: pytest.MonkeyPatch) -> None:
    """Two sources that had come to repair a file took each other for its holders, and left."""
    count = SharedFile.min_holder_count

    def with_sources(self: SharedFile) -> int:
        lenders, self.lenders = self.lenders, {}
        try:
            return count(self)
        finally:
            self.lenders = lenders

    patch.setattr(SharedFile, "min_holder_count", with_sources)


def who_is_back_is_not_served(patch: pytest.MonkeyPatch) -> None:
    """A member whose link was back was not served what it had asked for before, until it asked again."""
    patch.setattr(Relay, "reached", lambda self, member: None)


def an_answer_counts_though_all_has_come(patch: pytest.MonkeyPatch) -> None:
    """A client was told to wait for what it had just got, and waited for minutes before it asked for the rest."""
    delivered, answered = Download.delivered, Download.answered

    def never_all(self: Download, frame: Frame, written: Written, now: int) -> bool:
        self._awaited.add(self.manifest.chunk_count, self.manifest.chunk_count + 1)
        return delivered(self, frame, written, now) or not self.wanted()

    patch.setattr(Download, "answered", lambda self, number, _: answered(self, number, 120 * SECOND_NS))
    patch.setattr(Download, "delivered", never_all)
    patch.setattr(Download, "timeout_ns", lambda self: self._patience_ns or self.rtt.timeout_ns(self._random))


def one_round_trip_of_minutes_sets_the_timeout(patch: pytest.MonkeyPatch) -> None:
    """A client that had been deaf measured minutes, and then waited as long for each request that was lost."""
    patch.setattr(rto, "RTO_MAX_NS", 240 * SECOND_NS)


def who_is_left_behind_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """What only a client that was far behind had asked for was given up at the first timeout, again and again."""
    patch.setattr(Fetch, "is_wanted", property(lambda self: self.file.is_wanted(self.start, self.stop)))


FOUND: list[Any] = [
    pytest.param(16, an_answer_counts_though_all_has_come, "liveness", id="overtaken"),
    pytest.param(10, who_is_in_line_is_not_looked_up_in_the_cache, "AssertionError", id="gathered"),
    pytest.param(156, sources_count_as_holders, "liveness", id="two-sources"),
    pytest.param(23, who_is_back_is_not_served, "R9 handed to who waits", id="link-is-back"),
    pytest.param(979, who_is_left_behind_is_not_waited_for, "liveness", id="left-behind"),
    pytest.param(99, one_round_trip_of_minutes_sets_the_timeout, "liveness", id="minutes"),
]


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_it_is_mended(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    monkeypatch.setattr(scenario, "LIVENESS_NS", scenario.LIVENESS_NS // 6)
    if put_back is who_is_in_line_is_not_looked_up_in_the_cache:
        slow_gathering(monkeypatch)
    outcome = run_seed(seed)
    assert outcome.kind == "ok", outcome.text


@pytest.mark.parametrize(("seed", "put_back", "rule"), FOUND)
def test_the_seed_still_shows_it(monkeypatch: pytest.MonkeyPatch, seed: int, put_back: PutBack, rule: str) -> None:
    monkeypatch.setattr(scenario, "LIVENESS_NS", scenario.LIVENESS_NS // 6)
    put_back(monkeypatch)
    assert run_seed(seed).rule == rule
