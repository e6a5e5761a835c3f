"""Shares on several clients, and a source that stays as the holder of last resort."""

from __future__ import annotations

import pytest

from pspd.core.effects import EndSession, FileStalled, Milestone
from pspd.core.file_record import Phase
from pspd.core.ranges import Range, RangeSet
from pspd.core.terms import Terms
from pspd.errors import WrongState
from tests.core.bench import Bench

TWO_COPIES = Terms(replica_count=2)
STAYING = Terms(stays=True)


class TestReplicas:
    def test_each_share_is_given_to_as_many_clients(self) -> None:
        bench = Bench()
        members = [bench.join(name) for name in "abc"]
        file = bench.seed("f", 6, terms=TWO_COPIES)
        assert file.shares_of("a") == (Range(0, 2), Range(4, 6))
        assert file.shares_of("b") == (Range(0, 2), Range(2, 4))
        assert file.shares_of("c") == (Range(2, 4), Range(4, 6))
        for member in members[:2]:
            bench.reach(member, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        bench.reach(members[2], file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert file.min_holder_count() == 2

    @pytest.mark.parametrize("lost", "abc")
    def test_any_one_client_may_be_lost(self, lost: str) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "abc"}
        file = bench.exchange("f", 6, TWO_COPIES)
        bench.server.client_left(members[lost].session, "gone", bench.now)
        assert not bench.effects(FileStalled)
        assert file.min_holder_count() == 1

    def test_a_copy_whose_owner_is_lost_goes_to_one_who_has_none_of_it(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "abcd"}
        file = bench.seed("f", 8, terms=TWO_COPIES)
        bench.server.client_left(members["a"].session, "gone", bench.now)
        owners = {start: {share.owner for share in file.shares if share.start == start} for start in (0, 2, 4, 6)}
        assert all(len(names) == 2 for names in owners.values())

    def test_with_too_few_clients_left_it_goes_on_with_fewer_copies(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "ab"}
        file = bench.seed("f", 4, terms=TWO_COPIES)
        bench.server.client_left(members["a"].session, "gone", bench.now)
        assert file.shares_of("b") == (Range(0, 2), Range(2, 4))
        bench.reach(members["b"], file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_more_than_there_are_clients_are_refused(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(WrongState, match="2 replicas of 'f' need as many clients"):
            bench.seed("f", 4, terms=TWO_COPIES)

    def test_nobody_but_the_one_named_takes_itself_for_asked(self) -> None:
        bench = Bench(cache_chunks=1024)
        members = {name: bench.join(name) for name in "abc"}
        file = bench.exchange("f", 6, TWO_COPIES)
        late = bench.join("late")
        bench.ask(late, file, (0, 6))
        asked = bench.asked("a")
        assert RangeSet((entry.start, entry.stop) for entry in asked).covers(0, 6)
        assert {entry.responder for entry in asked} <= {member.session for member in members.values()}


class TestStaying:
    def test_the_source_is_not_let_go_at_the_seeded_moment(self) -> None:
        bench = Bench()
        bench.join("a"), bench.join("b")
        bench.exchange("f", 4, STAYING)
        assert "source of f" in bench.server.members

    def test_it_is_let_go_when_every_client_has_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        source = bench.server.members["source of f"]
        bench.reach(a, file, Milestone.COMPLETE)
        assert not bench.effects(EndSession)
        bench.reach(b, file, Milestone.COMPLETE)
        assert [ended.session for ended in bench.effects(EndSession)] == [source.session]
        assert file.is_complete

    def test_a_client_is_asked_before_it(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        bench.ask(a, file, (2, 4))
        assert [entry.responder for entry in bench.asked("a")] == [b.session]

    def test_what_a_lost_client_held_is_asked_of_it(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        bench.server.client_left(b.session, "gone", bench.now)
        assert not file.stalled
        bench.ask(a, file, (2, 4))
        assert [entry.responder for entry in bench.asked("a")] == [bench.server.members["source of f"].session]
