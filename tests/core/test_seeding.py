"""Shares and the seeded moment, also when members come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import (
    Assign,
    Deliver,
    FileResumed,
    FileSeeded,
    FileStalled,
    ServerEffect,
    StartExchange,
    UplinkConfirmed,
)
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.recipients import Recipients
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.datagrams import Hello
from pspd.core.wire.header import DropReason
from pspd.errors import WrongState
from tests.core.bench import Bench


def kinds(effects: list[ServerEffect]) -> list[type[ServerEffect]]:
    return [type(effect) for effect in effects]


class TestSeeding:
    def test_report_before_a_new_share_does_not_count(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        old_count = sum(share.chunk_count for share in file.shares.ranges_of("a"))
        bench.server.member_left(b.session, "gone", bench.now)
        assert file.shares.ranges_of("a") == (Range(0, 2), Range(2, 4))
        report = ReportMilestone(file.file_id, Milestone.SHARE_HELD, old_count)
        bench.server.catalogue.milestone_reached(a.session, report, bench.now)
        assert file.phase is Phase.SEEDING
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_request_older_than_a_report_is_stale(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        count = sum(share.chunk_count for share in file.shares.ranges_of("a"))
        report = ReportMilestone(file.file_id, Milestone.SHARE_HELD, count, request_number=bench.last_request + 1)
        bench.server.catalogue.milestone_reached(a.session, report, bench.now)
        bench.ask(a, file, (0, 2))
        assert list(file.availability.held["a"]) == [(0, 2)]
        assert bench.server.drop_counts[DropReason.STALE] == 1

    def test_request_for_its_share_clears_the_acknowledgement(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(a, file, Milestone.SHARE_HELD)
        bench.ask(a, file, (1, 2))
        bench.reach(b, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING, "the source stays"
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_held_share_of_a_lost_client_is_reassigned_while_seeding(
        self,
    ) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(b, file, Milestone.SHARE_HELD)
        bench.server.member_left(b.session, "gone", bench.now)
        assert file.shares.ranges_of("a") == (Range(0, 2), Range(2, 4))
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert not file.is_stalled

    def test_only_client_must_show_its_share_again(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.reach(b, file, Milestone.SHARE_HELD)
        bench.server.member_left(a.session, "gone", bench.now)
        bench.server.member_left(b.session, "gone", bench.now)
        b = bench.join("b")  # with an empty disk
        assert file.phase is Phase.SEEDING
        assert bench.effects(Assign)[-1].shares == (Range(0, 2), Range(2, 4))
        bench.reach(b, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING

    def test_client_with_the_file_holds_its_share(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 4)
        bench.reach(a, file, Milestone.COMPLETE)
        assert file.phase is Phase.EXCHANGING
        assert file.completed_at is not None

    def test_shares_of_lost_clients_are_reassigned_in_order(self) -> None:
        bench = Bench()
        members = {name: bench.join(name) for name in ("m1", "m2", "m3", "m4", "m5")}
        source = bench.join("s", is_source=True)
        manifest = bench.manifest("f", 50, 20)
        bench.server.catalogue.announce(manifest, source.session)
        file = bench.server.catalogue.divide(manifest, source.session, bench.now)
        bench.server.poll()
        bench.server.member_left(members["m1"].session, "gone", bench.now)
        sessions = [effect.session for effect in bench.effects(Assign)]
        assert sessions == [members[name].session for name in ("m2", "m3", "m4", "m5")]
        assert all(share.owner in members for share in file.shares.all)

    def test_seeded_moment_waits_for_the_last_byte(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        source = bench.server.members["source of f"]
        bench.ask(a, file, (0, 2))
        bench.contribute(bench.frame(source, file, 0, 2))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING  # the kernel has not yet taken it all
        bench.sent(a, deliver.number)
        assert file.phase is Phase.EXCHANGING
        (seeded,) = bench.effects(FileSeeded)
        assert (seeded.share_count, seeded.chunk_count, seeded.cached_bytes) == (1, 2, 0)
        assert not any(any(view) for view in deliver.views)

    def test_seeded_moment_waits_for_a_failed_delivery(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.ask(a, file, (0, 2))
        bench.contribute(bench.frame(bench.server.members["source of f"], file, 0, 2))
        (deliver,) = bench.delivered(a)
        bench.reach(a, file, Milestone.SHARE_HELD)
        bench.server.delivery_failed(a.session, deliver.number, bench.now)
        assert file.phase is Phase.EXCHANGING

    def test_unwanted_fetch_is_forgotten_with_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        bench.ask(b, file, (2, 4))
        bench.server.member_left(b.session, "gone", bench.now)
        assert len(bench.fetches(file)) == 1
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert len(bench.fetches(file)) == 0
        assert bench.server.cache.used_chunks == 0

    def test_requests_end_when_every_share_is_held(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2, hold_back=True)
        bench.ask(a, file, (0, 2))  # again: the delivery that overtook this request brought it all
        bench.server.poll()
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDED
        bench.live(SECOND_NS)
        assert (len(bench.fetches(file)), bench.demand(file).wanting, bench.server.cache.used_chunks) == (0, {}, 0)
        assert bench.asked("a") == []

    def test_contribution_in_progress_is_awaited(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        source = bench.server.members["source of f"]
        bench.ask(a, file, (0, 2))
        frame = bench.frame(source, file, 0, 2)
        reception = bench.start(frame)
        assert reception is not None
        bench.server.member_left(a.session, "gone", bench.now)
        a = bench.join("a")
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDING
        bench.server.contribution_aborted(reception, bench.now)
        assert file.phase is Phase.EXCHANGING

    def test_source_may_return_under_another_name(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.server.member_left(bench.server.members["source of f"].session, "gone", bench.now)
        assert bench.effects(FileStalled)[0].missing == ((Range(0, 2), ""),)
        other = bench.join("other", is_source=True)
        assert bench.server.catalogue.announce(file.manifest, other.session) is file
        bench.server.catalogue.source_returned(file, other.session, bench.now)
        assert len(bench.effects(FileResumed)) == 1
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert "other" not in bench.server.members  # it may go, and is told so

    def test_file_is_seeded_though_its_source_has_left(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2)
        bench.server.member_left(bench.server.members["source of f"].session, "gone", bench.now)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING
        assert not file.is_stalled

    def test_returning_source_repairs_a_file_and_stays(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.server.member_left(b.session, "gone", bench.now)
        assert bench.effects(FileStalled)[0].missing == ((Range(2, 4), "b"),)
        source = bench.join("s", is_source=True)
        assert bench.server.catalogue.announce(file.manifest, source.session) is file
        bench.server.catalogue.source_returned(file, source.session, bench.now)
        assert len(bench.effects(FileResumed)) == 1
        bench.ask(a, file, (2, 4))
        assert [asked.responder for asked in bench.asked("a")] == [source.session]

    def test_held_back_exchange_waits_for_its_release(self) -> None:
        bench = Bench()
        a = bench.join("a")
        file = bench.seed("f", 2, hold_back=True)
        bench.reach(a, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.SEEDED
        bench.ask(a, file, (0, 2))
        bench.join("late")
        assert {StartExchange, Deliver}.isdisjoint(kinds(bench.server.poll()))
        bench.server.catalogue.release(file, bench.now)
        assert file.phase is Phase.EXCHANGING
        assert len(bench.effects(StartExchange)) == 2

    def test_file_that_is_not_held_back_cannot_be_released(self) -> None:
        bench = Bench()
        bench.join("a")
        with pytest.raises(WrongState):
            bench.server.catalogue.release(bench.exchange("f", 2), bench.now)

    @pytest.mark.parametrize("held", [[(2, 9)], [(0, 2**32 - 1)], [(0, 4), (5, 6)]])
    def test_holding_beyond_the_end_is_ignored(self, held: list[tuple[int, int]]) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        bench.join("b", held={file.file_id: HeldChunks(RangeSet(held), complete=True)})
        assert list(file.availability.held["b"]) == []
        assert "b" not in file.recipients.complete_names

    def test_holding_of_a_later_file_is_checked_then(self) -> None:
        bench = Bench()
        manifest = bench.manifest("f", 4)
        bench.join("a", held={manifest.file_id: HeldChunks(RangeSet([(0, 5)]), complete=True)})
        file = bench.exchange("f", 4)
        assert (list(file.availability.held["a"]), file.recipients.complete_names) == ([Range(0, 4)], set()), (
            "its share alone, which it reported"
        )

    def test_complete_holding_without_all_chunks_is_not_complete(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        bench.join("b", held={file.file_id: HeldChunks(RangeSet([(0, 3)]), complete=True)})
        assert (list(file.availability.held["b"]), file.recipients.complete_names) == ([Range(0, 3)], set())

    def test_holdings_at_joining_count(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        part, whole = RangeSet([(1, 3)]), RangeSet([(0, 4)])
        bench.join("b", held={file.file_id: HeldChunks(part, complete=False)})
        bench.join("c", held={file.file_id: HeldChunks(whole, complete=True)})
        assert list(file.availability.held["b"]) == [Range(1, 3)]
        assert file.recipients.complete_names == {"c"}
        assert file.availability.min_holder_count() == 2

    def test_remembered_departed_clients_are_bounded(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, departed_clients_max=1))
        members = [bench.join(name) for name in "abc"]
        file = bench.exchange("f", 6)
        for member in members[:2]:
            bench.server.member_left(member.session, "gone", bench.now)
        assert file.availability.missing_ranges() == [(Range(0, 2), ""), (Range(2, 4), "b")]


class TestSilentClients:
    def test_silent_client_gets_no_share(self) -> None:
        bench = Bench()
        heard, silent = bench.join("a"), bench.join("b", reachable=False)
        file = bench.seed("f", 10)
        assert [share.owner for share in file.shares.all] == [heard.name]
        assert bench.server.sessions.clients_with_uplink() == ["a"]
        bench.reach(heard, file, Milestone.SHARE_HELD)
        assert file.phase is Phase.EXCHANGING, "the silent client does not delay it"
        bench.send(silent, Hello(silent.session, 1, 0))
        assert UplinkConfirmed("b") in bench.server.poll()

    def test_file_is_not_divided_among_silent_clients(self) -> None:
        bench = Bench()
        bench.join("a", reachable=False)
        source = bench.join("source", is_source=True)
        manifest = bench.manifest("f", 10, 1)
        bench.server.catalogue.announce(manifest, source.session)
        with pytest.raises(WrongState, match="0 clients"):
            bench.server.catalogue.divide(manifest, source.session, bench.now)

    def test_first_datagram_gets_a_client_a_share_without_owner(self) -> None:
        bench = Bench()
        lost = bench.join("a")
        file = bench.seed("f", 10)
        silent = bench.join("b", reachable=False)
        bench.server.member_left(lost.session, "it left", bench.now)
        assert file.shares.ranges_of("b") == ()
        bench.server.poll()
        bench.send(silent, Hello(silent.session, 1, 0))
        assert file.shares.ranges_of("b") == (Range(0, 10),)
        assigned = [effect for effect in bench.server.poll() if isinstance(effect, Assign)]
        assert [(each.session, each.shares) for each in assigned] == [(silent.session, (Range(0, 10),))]


def test_files_that_a_client_holds_are_assigned_first() -> None:
    bench = Bench()
    bench.join("a")
    first, second = bench.exchange("f", 4), bench.exchange("g", 4)
    b = bench.join("b", held={second.file_id: HeldChunks(RangeSet([(0, 2)]), complete=False)})
    told = [effect.manifest.name for effect in bench.effects(Assign) if effect.session == b.session]
    assert told == [second.manifest.name, first.manifest.name]


class TestRecipients:
    """Clients that own shares of a file, and left before they had it."""

    def test_client_without_the_file_is_missing_until_it_returns(self) -> None:
        bench = Bench()
        _, b = bench.join("a"), bench.join("b")
        file = bench.seed("f", 4)
        assert file.recipients.away() == []
        bench.now += SECOND_NS
        bench.server.member_left(b.session, "gone", bench.now)
        gone_at = bench.now
        bench.now += SECOND_NS
        assert file.recipients.away() == [("b", gone_at)]
        bench.join("b")
        assert file.recipients.away() == []

    def test_client_that_had_the_file_is_not_missing(self) -> None:
        bench = Bench()
        _, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.reach(b, file, Milestone.COMPLETE)
        bench.server.member_left(b.session, "gone", bench.now)
        assert (file.recipients.away(), file.recipients.count) == ([], 2)

    def test_late_joiner_is_not_missing(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.exchange("f", 4)
        late = bench.join("late")
        bench.server.member_left(late.session, "gone", bench.now)
        assert file.recipients.away() == []

    def test_unreachable_client_is_missing_since_the_first_moment(self) -> None:
        recipients = Recipients(bytes(32), WorkSet())
        recipients.set_names(["a", "b"])
        for now in (1, 2):
            recipients.mark_away("a", now)
        assert recipients.away() == [("a", 1)]
        recipients.mark_present("a")
        recipients.mark_away("unknown", 3)
        assert recipients.away() == []


class TestSeedingTime:
    """The seeding time is that of the last attempt."""

    def test_another_source_begins_a_new_attempt(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.seed("f", 4)
        bench.server.member_left(bench.server.members["source of f"].session, "killed", bench.now)
        bench.now += 30 * SECOND_NS
        again = bench.join("another source", is_source=True)
        bench.server.catalogue.announce(file.manifest, again.session)
        bench.server.catalogue.source_returned(file, again.session, bench.now)
        assert file.seeding_at == bench.now

    def test_source_that_joins_again_continues_its_attempt(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.seed("f", 4)
        began_at = file.seeding_at
        bench.now += SECOND_NS
        again = bench.join("source of f", is_source=True)
        bench.server.catalogue.announce(file.manifest, again.session)
        bench.server.catalogue.source_returned(file, again.session, bench.now)
        assert file.seeding_at == began_at

    def test_restart_makes_the_times_unknown(self) -> None:
        bench = Bench()
        bench.join("a")
        record = bench.exchange("f", 4).record
        restored = SharedFile.from_record(record, 1, WorkSet(), SERVER_TUNING)
        assert (restored.seeding_at, restored.exchanging_at) == (None, None)
