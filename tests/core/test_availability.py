"""The holdings of members and the available chunks, compared with plain sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.effects.server import FileResumed, FileStalled
from pspd.core.effects.shared import Milestone
from pspd.core.model.manifest import Manifest
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.server.shared_file import SharedFile
from tests.core.bench import Bench

CHUNKS = 2101
BOUNDARY = CHUNKS // 4
"""The end of the first share: an odd chunk, so that the boundary cuts a block of two chunks."""
LOW, HIGH = BOUNDARY - 9, BOUNDARY + 9
UNDIVIDED, DIVIDED = Bench().manifest("f", CHUNKS), Bench().manifest("f", CHUNKS, 4)

chunks = st.integers(LOW, HIGH)
changes = st.tuples(
    st.sampled_from(["add", "remove", "mark_unreachable", "mark_reachable"]),
    st.sampled_from("ab"),
    st.tuples(chunks, chunks),
)


def whole_units(manifest: Manifest, arrived: set[int]) -> set[int]:
    return {chunk for chunk in arrived if set(range(*manifest.unit_at(chunk)[0])) <= arrived}


def chunks_in(found: RangeSet) -> set[int]:
    return {chunk for span in found for chunk in range(*span)}


class TestHoldings:
    @given(st.lists(changes, max_size=30), st.booleans())
    def test_holdings_match_a_model_of_sets(self, steps, divides) -> None:
        file = SharedFile(UNDIVIDED, "s")
        arrived: dict[str, set[int]] = {"a": set(), "b": set()}
        away: set[str] = set()
        for name in arrived:
            file.availability.add_arrived(name, ())
        for index, (change, name, (start, stop)) in enumerate(steps):
            span = Range(min(start, stop), max(start, stop))
            if divides and index == len(steps) // 2:
                file.divide(DIVIDED, "s", ["a", "b"])
            match change:
                case "add":
                    file.availability.add_arrived(name, [span])
                    arrived[name] |= set(range(*span))
                case "remove":
                    parts = file.availability.remove_arrived(name, [span])
                    assert {chunk for part in parts for chunk in range(*part)} == arrived[name] & set(range(*span))
                    arrived[name] -= set(range(*span))
                case "mark_unreachable":
                    file.availability.mark_unreachable(name)
                    away.add(name)
                case _:
                    file.availability.mark_reachable(name)
                    away.discard(name)
            held = {name: whole_units(file.manifest, found) for name, found in arrived.items()}
            assert {name: chunks_in(found) for name, found in file.availability.held.items()} == held
            available = set().union(*(held[name] for name in held if name not in away))
            assert chunks_in(file.availability.available) == available
            missing = {chunk: name for span, name in file.availability.missing_ranges() for chunk in range(*span)}
            assert missing.keys() == set(range(CHUNKS)) - available
            assert {chunk for chunk in missing if missing[chunk]} == set().union(*(held[n] for n in away)) - available

    def test_boundary_of_a_share_cuts_units(self) -> None:
        file = SharedFile(UNDIVIDED, "s")
        file.availability.add_arrived("a", [(BOUNDARY - 1, BOUNDARY)])
        assert UNDIVIDED.unit_at(BOUNDARY)[0] == Range(BOUNDARY - 1, BOUNDARY + 1)
        assert list(file.availability.held["a"]) == []
        file.divide(DIVIDED, "s", ["a"])
        assert list(file.availability.held["a"]) == [Range(BOUNDARY - 1, BOUNDARY)]
        assert file.availability.available == file.availability.held["a"]


class TestUnits:
    def exchange(self) -> tuple[Bench, SharedFile]:
        bench = Bench()
        bench.join("a")
        bench.join("b")
        return bench, bench.exchange("f", CHUNKS)

    def test_half_a_unit_is_not_held(self) -> None:
        bench, file = self.exchange()
        a, b = bench.server.members["a"], bench.server.members["b"]
        held_before = file.availability.held["a"].chunk_count
        for chunk, gained in ((1500, 0), (1501, 2)):
            bench.ask(a, file, (chunk, chunk + 1))
            assert bench.contribute(bench.frame(b, file, chunk, chunk + 1))
            (deliver,) = bench.delivered(a)
            bench.ask(a, file, acknowledged=deliver.number)
            assert file.availability.held["a"].chunk_count - held_before == gained
            bench.sent(a, deliver.number)

    def test_losing_half_a_unit_loses_all_of_it(self) -> None:
        bench, file = self.exchange()
        bench.ask(bench.server.members["a"], file, (500, 501))
        assert bench.effects(FileStalled)[0].missing == ((Range(500, 502), ""),)
        assert not file.availability.held["a"].within(500, 502)

    def test_halves_with_two_holders_leave_a_unit_missing(self) -> None:
        bench, file = self.exchange()
        bench.server.member_left(bench.server.members["b"].session, "gone", bench.now)
        b_share = Range(CHUNKS // 2, CHUNKS)
        for name, span in (("c", (b_share.start, 1501)), ("d", (1501, b_share.stop))):
            bench.join(name, held={file.file_id: HeldChunks(RangeSet([span]), complete=False)})
        assert file.availability.missing_ranges() == [(Range(1500, 1502), "b")]
        bench.join("e", held={file.file_id: HeldChunks(RangeSet([(1500, 1502)]), complete=False)})
        assert bench.effects(FileResumed) == [FileResumed(file.file_id, "f")]


@pytest.mark.parametrize("name", ["a", "b"])
def test_marking_unreachable_twice_changes_nothing(name: str) -> None:
    file = SharedFile(DIVIDED, "s")
    file.availability.add_arrived("a", [(0, CHUNKS)])
    file.availability.add_arrived("b", [(0, CHUNKS)])
    file.availability.mark_unreachable(name)
    file.availability.mark_unreachable(name)
    assert file.availability.min_holder_count() == 1
    file.availability.mark_reachable(name)
    file.availability.mark_reachable(name)
    assert file.availability.min_holder_count() == 2


class TestLostWithout:
    def test_held_only_by_is_what_only_they_hold(self) -> None:
        bench = Bench()
        a, b, _ = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        assert list(file.availability.held_only_by({"a"})) == [Range(0, 2)]
        assert list(file.availability.held_only_by({"a", "b"})) == [Range(0, 4)]
        file.availability.add_arrived("c", [(0, 2)])
        assert list(file.availability.held_only_by({"a"})) == []
        assert bench.server.catalogue.needed_from({"a"}) == []
        assert [lost for _, lost in bench.server.catalogue.needed_from({"b"})] == [RangeSet([(2, 4)])]
        for member in (a, b):
            bench.reach(member, file, Milestone.COMPLETE)
        assert bench.server.catalogue.needed_from({"a"}) == []

    def test_held_only_by_is_empty_with_a_source(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.seed("f", 6)
        assert list(file.availability.held_only_by({"a"})) == []

    def test_held_only_by_ignores_files_that_others_have(self) -> None:
        bench = Bench()
        a, b = (bench.join(name) for name in "ab")
        file = bench.exchange("f", 6)
        bench.reach(b, file, Milestone.COMPLETE)
        assert not file.is_complete
        assert bench.server.catalogue.needed_from({"a"}) == []
        bench.reach(a, file, Milestone.COMPLETE)
        assert bench.server.catalogue.needed_from({"a", "b"}) == []

    def test_held_only_by_counts_declining_clients(self) -> None:
        bench = Bench()
        a, b = (bench.join(name) for name in "ab")
        file = bench.exchange("f", 6)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.server.catalogue.file_declined(b.session, file.file_id, "it was removed", bench.now)
        assert file.is_complete
        assert [lost for _, lost in bench.server.catalogue.needed_from({"a"})] == [RangeSet([(0, 6)])]
        assert bench.server.catalogue.needed_from({"a", "b"}) == [], "no client is left that could want it"
