"""A server that was restarted, with what it had written down: who was connected has time to come back."""

from __future__ import annotations

from pspd.core.effects.server import Assign, ClientLost, FileCompleted, FileSeeded, FileStalled, SaveFile, StartExchange
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held
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
    return bench.join(name, held={file.file_id: Held(RangeSet(held), complete)})


def assigned(bench: Bench, member: Member) -> list[tuple[Range, ...]]:
    return [effect.shares for effect in bench.effects(Assign) if effect.session == member.session]


class TestSeeding:
    def begun(self) -> tuple[Bench, FileRecord]:
        bench = Bench()
        for name in "ab":
            bench.join(name)
        bench.seed("f", 6)
        return bench, saved(bench)

    def test_whoever_comes_back_gets_its_own_share_and_nobody_elses(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        b = back(bench, file, "b")
        assert assigned(bench, b) == [(Range(3, 6),)]
        a = back(bench, file, "a", (0, 3))
        assert assigned(bench, a) == [(Range(0, 3),)]
        assert file.phase is Phase.SEEDING

    def test_owner_that_comes_back_keeps_its_share_until_heard(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "b")
        silent = bench.join("a", reachable=False)
        bench.join("c")
        assert file.shares.ranges_of("a") == (Range(0, 3),)
        assert assigned(bench, silent) == [(Range(0, 3),)]

    def test_what_was_held_before_is_held_when_its_owner_says_so(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        for name, share in (("a", (0, 3)), ("b", (3, 6))):
            member = back(bench, file, name, share)
            bench.reach(member, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_the_share_of_one_who_does_not_come_back_goes_to_another(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        a = back(bench, file, "a", (0, 3))
        bench.live(SERVER_TUNING.reach_ns - MILLISECOND_NS)
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

    def test_goes_on_and_is_told_to_who_comes_back(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        a = back(bench, file, "a", (0, 3))
        assert [effect.exchange_started for effect in bench.effects(Assign)] == [True]
        back(bench, file, "b", (3, 6))
        bench.ask(a, file, (3, 6))
        assert [asked.start for asked in bench.asked("b")] == [3]
        assert not bench.effects(FileSeeded)
        assert not bench.effects(StartExchange)

    def test_is_neither_stalled_nor_complete_while_others_may_come_back(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 6), complete=True)
        assert (file.stalled, file.is_complete) == (False, False)
        back(bench, file, "b", (3, 6))
        assert (file.stalled, file.is_complete) == (False, False)
        bench.reach(bench.server.members["b"], file, Milestone.COMPLETE)
        assert file.is_complete

    def test_is_complete_without_one_who_does_not_come_back(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 6), complete=True)
        bench.live(SERVER_TUNING.reach_ns)
        assert file.is_complete
        assert len(bench.effects(FileCompleted)) == 1

    def test_is_stalled_by_one_who_does_not_come_back_and_says_who_that_is(self) -> None:
        bench, file = restarted(*self.begun(), "a", "b")
        back(bench, file, "a", (0, 3))
        bench.live(SERVER_TUNING.reach_ns)
        assert [effect.missing for effect in bench.effects(FileStalled)] == [((Range(3, 6), "b"),)]

    def test_with_nobody_who_was_connected_it_is_as_after_any_loss(self) -> None:
        bench, file = restarted(*self.begun())
        back(bench, file, "c")
        assert file.stalled


def test_what_is_held_back_is_held_back_until_it_is_released() -> None:
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


def test_the_lost_are_known_by_name_until_they_are_back() -> None:
    bench = Bench()
    bench.server.restore([], ["a", "b"], bench.now)
    assert list(bench.server.sessions.lost_clients) == ["a", "b"]
    bench.join("a")
    assert list(bench.server.sessions.lost_clients) == ["b"]


def test_who_does_not_come_back_is_told_to_be_lost_and_not_waited_for_again() -> None:
    bench = Bench()
    bench.server.restore([], ["a", "b"], bench.now)
    bench.join("a")
    bench.live(SERVER_TUNING.reach_ns)
    assert [effect.name for effect in bench.effects(ClientLost)] == ["b"]
    assert not bench.server.lifecycle.awaited


def test_a_new_file_waits_for_nobody_who_was_there_before() -> None:
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
    before.server.client_left(b.session, "gone", before.now)
    before.reach(a, file, Milestone.SHARE_HELD)
    record = saved(before)
    assert sorted(record.owners) == ["", "", "a", "a"]
    _, file = restarted(before, record)
    assert file.availability.missing() == [(Range(0, 4), "a")]
