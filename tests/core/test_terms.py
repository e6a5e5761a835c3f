"""Replicas of shares, and a source that stays as the holder of last resort."""

from __future__ import annotations

import pytest

from pspd.core.effects.server import Assign, EndCause, EndSession, FileStalled
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import SHARE_COUNT_MAX
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING
from pspd.errors import LimitReached, WrongState
from tests.core.bench import Bench

TWO_COPIES = Terms(replica_count=2)
STAYING = Terms(source_stays=True)


class TestReplicas:
    def test_each_share_has_as_many_owners_as_replicas(self) -> None:
        bench = Bench()
        members = [bench.join(name) for name in "abc"]
        file = bench.seed("f", 6, terms=TWO_COPIES)
        assert file.shares.ranges_of("a") == (Range(0, 2), Range(4, 6))
        assert file.shares.ranges_of("b") == (Range(0, 2), Range(2, 4))
        assert file.shares.ranges_of("c") == (Range(2, 4), Range(4, 6))
        for member in members[:2]:
            bench.reach(member, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        bench.reach(members[2], file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert file.availability.min_holder_count() == 2

    @pytest.mark.parametrize("lost", "abc")
    def test_any_one_client_may_be_lost(self, lost: str) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "abc"}
        file = bench.exchange("f", 6, TWO_COPIES)
        bench.server.member_left(members[lost].session, "gone", bench.now)
        assert not bench.effects(FileStalled)
        assert file.availability.min_holder_count() == 1

    def test_replica_of_a_lost_owner_goes_to_a_client_without_one(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "abcd"}
        file = bench.seed("f", 8, terms=TWO_COPIES)
        bench.server.member_left(members["a"].session, "gone", bench.now)
        owners = {start: {share.owner for share in file.shares.all if share.start == start} for start in (0, 2, 4, 6)}
        assert all(len(names) == 2 for names in owners.values())

    def test_seeding_continues_with_fewer_replicas(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "ab"}
        file = bench.seed("f", 4, terms=TWO_COPIES)
        bench.server.member_left(members["a"].session, "gone", bench.now)
        assert file.shares.ranges_of("b") == (Range(0, 2), Range(2, 4))
        bench.reach(members["b"], file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    @pytest.mark.parametrize("is_held", [False, True])
    def test_returning_owner_gets_its_replicas_again(self, is_held: bool) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.seed("f", 6, terms=TWO_COPIES)
        for member in (a, b):
            bench.server.member_left(member.session, "gone", bench.now)
        assert file.shares.ranges_of("c") == (Range(0, 2), Range(2, 4), Range(4, 6))
        a = bench.join("a")
        assert file.shares.ranges_of("a") == (Range(0, 2), Range(2, 4), Range(4, 6))
        if is_held:
            bench.reach(c, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        for member in (a, c):
            bench.reach(member, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert file.availability.min_holder_count() == 2

    def test_last_assignment_of_each_client_has_its_shares(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.seed("f", 6, terms=TWO_COPIES)
        for member in (a, b):
            bench.server.member_left(member.session, "gone", bench.now)
        a = bench.join("a")
        told = {effect.session: effect.shares for effect in bench.effects(Assign)}
        assert told[a.session] == file.shares.ranges_of("a")
        assert told[c.session] == file.shares.ranges_of("c")

    def test_empty_shares_are_not_replicas_of_their_neighbours(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in "abcd"}
        file = bench.seed("f", 1, terms=TWO_COPIES)
        bench.server.member_left(members["a"].session, "gone", bench.now)
        for name in "bcd":
            bench.reach(members[name], file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_client_that_declines_leaves_fewer_replicas(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4, terms=TWO_COPIES)
        bench.server.catalogue.file_declined(b.session, file.file_id, "no room", bench.now)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert file.availability.min_holder_count() == 1

    def test_more_replicas_than_clients_are_refused(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(WrongState, match="2 replicas of 'f' need as many clients"):
            bench.seed("f", 4, terms=TWO_COPIES)

    def test_too_many_shares_with_all_replicas_are_refused(self) -> None:
        bench = Bench()
        for name in "ab":
            bench.join(name)
        source = bench.join("s", is_source=True)
        manifest = bench.manifest("f", 0, SHARE_COUNT_MAX // 2 + 1)
        file = bench.server.catalogue.announce(manifest, source.session, TWO_COPIES)
        with pytest.raises(LimitReached, match="2 replicas of 50001 shares are too many: 100000 together"):
            bench.server.catalogue.divide(manifest, source.session, bench.now)
        assert file.shares.all == []

    def test_broadcast_names_a_holder_for_each_range(self) -> None:
        bench = Bench(cache_chunks=1024)
        members = {name: bench.join(name) for name in "abc"}
        file = bench.exchange("f", 6, TWO_COPIES)
        late = bench.join("late")
        bench.ask(late, file, (0, 6))
        asked = bench.asked("a")
        assert RangeSet((entry.start, entry.stop) for entry in asked).covers(0, 6)
        assert {entry.responder for entry in asked} <= {member.session for member in members.values()}


class TestStaying:
    def test_staying_source_stays_at_the_seeded_moment(self) -> None:
        bench = Bench()
        bench.join("a"), bench.join("b")
        bench.exchange("f", 4, STAYING)
        assert "source of f" in bench.server.members

    def test_staying_source_ends_when_every_client_has_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        source = bench.server.members["source of f"]
        bench.reach(a, file, Milestone.COMPLETE)
        assert not bench.effects(EndSession)
        bench.reach(b, file, Milestone.COMPLETE)
        (ended,) = bench.effects(EndSession)
        assert (ended.session, ended.cause) == (source.session, EndCause.SOURCE_DONE)
        assert file.is_complete

    def test_several_staying_sources_end_together(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        second = bench.join("second source", is_source=True)
        bench.server.catalogue.announce(file.manifest, second.session, STAYING)
        bench.server.catalogue.source_returned(file, second.session, bench.now)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.server.member_left(b.session, "gone", bench.now)
        assert set(bench.server.members) == {"a"}
        assert file.is_complete

    def test_client_is_asked_before_a_source(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        bench.ask(a, file, (2, 4))
        assert [entry.responder for entry in bench.asked("a")] == [b.session]

    def test_rare_client_holder_is_asked_before_a_source(self) -> None:
        bench = Bench(cache_chunks=1024)
        members = [bench.join(f"m{index}") for index in range(60)]
        file = bench.exchange("f", 60, STAYING)
        late, holder = members[:2]
        bench.server.member_left(members[59].session, "gone", bench.now)
        file.availability.add_arrived(holder.name, [(59, 60)])
        bench.ask(late, file, (59, 60))
        bench.pass_time(len(members) * SERVER_TUNING.broadcast_pacing_ns)
        assert [entry.responder for entry in bench.asked("m0")] == [holder.session]

    def test_second_client_is_asked_before_a_source(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6, STAYING)
        file.availability.add_arrived(c.name, [(2, 4)])
        bench.ask(a, file, (2, 4))
        assert [entry.responder for entry in bench.asked("a")] == [b.session]
        bench.pass_time(SERVER_TUNING.fetch_rto_min_ns * 3 // 2)
        assert [entry.responder for entry in bench.asked("a")] == [c.session]

    def test_source_is_asked_for_chunks_of_a_lost_client(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4, STAYING)
        bench.server.member_left(b.session, "gone", bench.now)
        assert not file.is_stalled
        bench.ask(a, file, (2, 4))
        assert [entry.responder for entry in bench.asked("a")] == [bench.server.members["source of f"].session]
