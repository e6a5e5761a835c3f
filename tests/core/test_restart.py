"""A restarted server with saved records: clients that were connected have some time to return."""

from __future__ import annotations

from pspd.core.effects.server import Assign, FileCompleted, FileSeeded, FileStalled, MemberLeft, SaveFile, StartExchange
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.terms import Terms
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from tests.core.bench import Bench


def saved(bench: Bench) -> FileRecord:
    return bench.effects(SaveFile)[-1].record


def restarted(before: Bench, record: FileRecord, *clients: str) -> tuple[Bench, SharedFile]:
    after = Bench()
    after.data = before.data
    after.server.restore([record], clients, after.now)
    return after, after.server.catalogue.files[record.file_id]


def back(bench: Bench, file: SharedFile, name: str, *held: tuple[int, int], complete: bool = False) -> Member:
    return bench.join(name, held={file.file_id: HeldChunks(RangeSet(held), complete)})


def assigned(bench: Bench, member: Member) -> list[tuple[Range, ...]]:
    return [effect.shares for effect in bench.effects(Assign) if effect.session == member.session]


class TestSeeding:
    def begun(self) -> tuple[Bench, FileRecord]:
        bench = Bench()
        for name in "ab":
            bench.join(name)
        bench.seed("f", 6)
        return bench, saved(bench)

    def test_returning_client_gets_its_own_share_only(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        b = back(bench, file, "b")
        assert assigned(bench, b) == [(Range(3, 6),)]
        a = back(bench, file, "a", (0, 3))
        assert assigned(bench, a) == [(Range(0, 3),)]
        assert file.phase is Phase.SEEDING

    def test_returning_owner_keeps_its_share_before_it_is_heard(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "b")
        silent = bench.join("a", reachable=False)
        bench.join("c")
        assert file.shares.ranges_of("a") == (Range(0, 3),)
        assert assigned(bench, silent) == [(Range(0, 3),)]

    def test_share_is_held_when_its_owner_reports_it(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        for name, share in (("a", (0, 3)), ("b", (3, 6))):
            member = back(bench, file, name, share)
            bench.reach(member, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_share_of_a_client_that_does_not_return_is_reassigned(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        a = back(bench, file, "a", (0, 3))
        bench.live(SERVER_TUNING.reachability_ns - MILLISECOND_NS)
        assert assigned(bench, a) == [(Range(0, 3),)]
        bench.live(MILLISECOND_NS)
        told = bench.server.poll()
        assert [effect.shares for effect in told if isinstance(effect, Assign)] == [(Range(0, 3), Range(3, 6))]
        assert [effect.record.owners for effect in told if isinstance(effect, SaveFile)] == [("a", "a")]


class TestExchange:
    def begun(self) -> tuple[Bench, FileRecord]:
        bench = Bench()
        for name in "ab":
            bench.join(name)
        return bench, bench.exchange("f", 6).record

    def test_exchange_continues_for_returning_clients(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        a = back(bench, file, "a", (0, 3))
        assert [effect.exchange_started for effect in bench.effects(Assign)] == [True]
        back(bench, file, "b", (3, 6))
        bench.ask(a, file, (3, 6))
        assert [asked.start for asked in bench.asked("b")] == [3]
        assert not bench.effects(FileSeeded)
        assert not bench.effects(StartExchange)

    def test_awaited_file_is_neither_stalled_nor_complete(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 6), complete=True)
        assert (file.is_stalled, file.is_complete) == (False, False)
        back(bench, file, "b", (3, 6))
        assert (file.is_stalled, file.is_complete) == (False, False)
        bench.reach(bench.server.members["b"], file, Milestone.COMPLETE)
        assert file.is_complete

    def test_file_is_complete_without_a_lost_client(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 6), complete=True)
        bench.live(SERVER_TUNING.reachability_ns)
        assert file.is_complete
        assert len(bench.effects(FileCompleted)) == 1

    def test_file_stalled_by_a_lost_client_names_it(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 3))
        bench.live(SERVER_TUNING.reachability_ns)
        assert [effect.missing for effect in bench.effects(FileStalled)] == [((Range(3, 6), "b"),)]

    def test_file_without_connected_clients_is_stalled_at_once(self) -> None:
        bench, file = restarted(*self.begun())
        back(bench, file, "c")
        assert file.is_stalled


def test_file_stays_held_back_until_its_release() -> None:
    before = Bench()
    members = [before.join(name) for name in "ab"]
    file = before.seed("f", 6, hold_back=True)
    for member in members:
        before.reach(member, file, Milestone.SHARE_HELD)
    bench, file = restarted(before, saved(before), "a", "b")
    assert (file.phase, file.held_back) == (Phase.SEEDED, True)
    bench.server.catalogue.release(file, bench.now)
    assert file.phase is Phase.EXCHANGING
    assert saved(bench).phase is Phase.EXCHANGING


def test_lost_clients_are_listed_until_they_return() -> None:
    bench = Bench()
    bench.server.restore([], ["a", "b"], bench.now)
    assert list(bench.server.sessions.lost_clients) == ["a", "b"]
    bench.join("a")
    assert list(bench.server.sessions.lost_clients) == ["b"]


def test_client_that_does_not_return_is_lost_once() -> None:
    bench = Bench()
    bench.server.restore([], ["a", "b"], bench.now)
    bench.join("a")
    bench.live(SERVER_TUNING.reachability_ns)
    assert [effect.name for effect in bench.effects(MemberLeft)] == ["b"]
    assert not bench.server.lifecycle.awaited


def test_new_file_does_not_wait_for_awaited_clients() -> None:
    bench = Bench()
    bench.server.restore([], ["ghost"], bench.now)
    a = bench.join("a")
    file = bench.exchange("f", 6)
    bench.reach(a, file, Milestone.COMPLETE)
    assert bench.server.lifecycle.awaited
    assert file.is_complete


def test_awaited_clients_may_hold_chunks_of_a_restored_file() -> None:
    before = Bench()
    before.join("a")
    record = before.exchange("f", 6).record
    bench, file = restarted(before, record, "a")
    assert bench.server.lifecycle.awaits_holders
    back(bench, file, "a", (0, 6))
    assert not bench.server.lifecycle.awaits_holders


def test_replica_without_an_owner_has_no_last_holder() -> None:
    before = Bench()
    a, b = before.join("a"), before.join("b")
    file = before.seed("f", 4, terms=Terms(replica_count=2))
    before.server.member_left(b.session, "gone", before.now)
    before.reach(a, file, Milestone.SHARE_HELD)
    record = saved(before)
    assert sorted(record.owners) == ["", "", "a", "a"]
    _, file = restarted(before, record)
    assert file.availability.missing_ranges() == [(Range(0, 4), "a")]
