"""Bandwidth, delay and loss between the server and a client."""

from __future__ import annotations

from random import Random

import pytest

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.sim.paths import DatagramPath, Impairments, Pipe


class TestPipe:
    def test_bytes_pass_in_order_at_the_rate(self) -> None:
        pipe = Pipe(rate=1000)
        assert pipe.transmit(500, start=0) == (0, SECOND_NS // 2)
        assert pipe.transmit(500, start=0) == (SECOND_NS // 2, SECOND_NS)
        assert pipe.byte_count == 1000

    def test_slow_sender_leaves_capacity_to_others(self) -> None:
        pipe = Pipe(rate=1000)
        assert pipe.transmit(100, start=0, finish=SECOND_NS) == (0, SECOND_NS)
        assert pipe.transmit(100, start=0) == (SECOND_NS // 10, SECOND_NS // 5)

    def test_unlimited_pipe_takes_no_time(self) -> None:
        pipe = Pipe()
        assert pipe.transmit(10**9, start=5) == (5, 5)

    def test_datagram_skips_the_queue_and_delays_it(self) -> None:
        pipe = Pipe(rate=1000)
        pipe.transmit_datagram(100, now=0)
        assert pipe.transmit(0, start=0) == (SECOND_NS // 10, SECOND_NS // 10)


class TestDatagramPath:
    @pytest.mark.parametrize("burst", [1.0, 5.0])
    def test_loss_rate_and_burst_length_are_as_configured(self, burst: float) -> None:
        path = DatagramPath(Impairments(loss=0.3, burst=burst), Random(1))
        arrived = [len(list(path.delays())) for _ in range(20_000)]
        assert 0.68 < sum(arrived) / len(arrived) < 0.72
        losses = "".join(map(str, arrived)).split("1")
        lengths = [len(run) for run in losses if run]
        assert burst * 0.8 < sum(lengths) / len(lengths) < burst * 1.5

    def test_datagrams_are_duplicated_delayed_and_reordered(self) -> None:
        impairments = Impairments(delay_ns=MILLISECOND_NS, jitter_ns=MILLISECOND_NS, duplicate=0.5, reorder=0.1)
        path = DatagramPath(impairments, Random(1))
        delays = [delay for _ in range(2000) for delay in path.delays()]
        assert 2900 < len(delays) < 3100
        assert min(delays) >= MILLISECOND_NS
        assert sum(delay > 2 * MILLISECOND_NS for delay in delays) in range(200, 400)
