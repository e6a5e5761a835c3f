"""Bandwidth, delay and loss between the server and a client."""

from __future__ import annotations

from random import Random

import pytest

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.sim.wires import Air, Pipe, Weather


class TestPipe:
    def test_bytes_pass_at_its_rate_one_after_the_other(self) -> None:
        pipe = Pipe(rate=1000)
        assert pipe.take(500, start=0) == (0, SECOND_NS // 2)
        assert pipe.take(500, start=0) == (SECOND_NS // 2, SECOND_NS)
        assert pipe.byte_count == 1000

    def test_what_comes_slower_than_its_rate_leaves_room_for_others(self) -> None:
        pipe = Pipe(rate=1000)
        assert pipe.take(100, start=0, finish=SECOND_NS) == (0, SECOND_NS)
        assert pipe.take(100, start=0) == (SECOND_NS // 10, SECOND_NS // 5)

    def test_one_without_a_rate_takes_no_time(self) -> None:
        pipe = Pipe()
        assert pipe.take(10**9, start=5) == (5, 5)

    def test_a_datagram_waits_for_nothing_and_delays_what_comes_after(self) -> None:
        pipe = Pipe(rate=1000)
        pipe.squeeze_in(100, now=0)
        assert pipe.take(0, start=0) == (SECOND_NS // 10, SECOND_NS // 10)


class TestAir:
    @pytest.mark.parametrize("burst", [1.0, 5.0])
    def test_as_many_are_lost_as_the_weather_says_in_bursts_or_not(self, burst: float) -> None:
        air = Air(Weather(loss=0.3, burst=burst), Random(1))
        arrived = [len(list(air.copies())) for _ in range(20_000)]
        assert 0.68 < sum(arrived) / len(arrived) < 0.72
        losses = "".join(map(str, arrived)).split("1")
        lengths = [len(run) for run in losses if run]
        assert burst * 0.8 < sum(lengths) / len(lengths) < burst * 1.5

    def test_copies_are_doubled_delayed_and_overtaken(self) -> None:
        weather = Weather(delay_ns=MILLISECOND_NS, jitter_ns=MILLISECOND_NS, duplicate=0.5, reorder=0.1)
        air = Air(weather, Random(1))
        delays = [delay for _ in range(2000) for delay in air.copies()]
        assert 2900 < len(delays) < 3100
        assert min(delays) >= MILLISECOND_NS
        assert sum(delay > 2 * MILLISECOND_NS for delay in delays) in range(200, 400)
