"""The pacing of broadcasts: the first ones of fetches, and repeated ones."""

from __future__ import annotations

from dataclasses import replace

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.model.tuning import SERVER_TUNING
from tests.core.bench import Bench


class TestBroadcastPacing:
    def test_broadcasts_of_many_files_are_paced(self) -> None:
        tuning = replace(SERVER_TUNING, broadcast_burst_datagrams=4, broadcast_pacing_ns=10 * MILLISECOND_NS)
        bench = Bench(tuning=tuning, at_once=False)
        a, b = bench.join("a"), bench.join("b")
        files = [bench.exchange(f"f{index}", 8) for index in range(5)]
        for file in files:
            bench.ask(a, file, *file.shares.ranges_of(b.name))
        broadcast_counts = []
        for _ in range(3):
            broadcast_counts.append(len(bench.asked("a")))
            assert bench.asked("a") == [], "broadcasts during the pause"
            bench.pass_time(4 * 10 * MILLISECOND_NS)
        assert broadcast_counts == [2, 2, 1], "four datagrams at a time: two files to two members"

    def test_repeated_broadcasts_are_paced(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, broadcast_burst_datagrams=1, broadcast_pacing_ns=MILLISECOND_NS))
        a, b = bench.join("a"), bench.join("b")
        files = [bench.exchange(f"f{index}", 8) for index in range(3)]
        for file in files:
            bench.ask(a, file, *file.shares.ranges_of(b.name))
            bench.now += 10 * MILLISECOND_NS
            bench.server.handle_timeout(bench.now)
        assert sum(file.traffic.broadcast_datagrams for file in files) == 2 * len(files)
        bench.now += 5 * SECOND_NS
        bench.server.handle_timeout(bench.now)
        assert sum(file.traffic.broadcast_datagrams for file in files) == 2 * len(files) + 2, (
            "only the fetch of one file is repeated at a time"
        )
