"""Removing a file: it is deleted at once, or when its last byte has left the server."""

from __future__ import annotations

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import FileRemoved, RemoveFile
from pspd.core.effects.shared import Milestone
from pspd.core.model.ranges import RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.header import DropReason
from pspd.errors import NotFound, WrongState
from tests.core.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def begun(bench: Bench) -> tuple[Member, Member, SharedFile]:
    a, b = (bench.join(name) for name in "ab")
    file = bench.exchange("f", 6)
    bench.server.poll()
    return a, b, file


def remove(bench: Bench, file: SharedFile, *, force: bool = True) -> None:
    bench.server.catalogue.remove(file, bench.now, force=force)


def test_removal_is_told_to_every_client(bench: Bench) -> None:
    a, b, file = begun(bench)
    remove(bench, file)
    effects = bench.server.poll()
    assert [effect.session for effect in effects if isinstance(effect, RemoveFile)] == [a.session, b.session]
    assert [effect.name for effect in effects if isinstance(effect, FileRemoved)] == ["f"]
    assert bench.server.catalogue.files == {}


def test_incomplete_file_is_removed_by_force_only(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.reach(a, file, Milestone.COMPLETE)
    with pytest.raises(WrongState, match="--force"):
        remove(bench, file, force=False)
    bench.reach(b, file, Milestone.COMPLETE)
    remove(bench, file, force=False)
    assert bench.server.catalogue.files == {}


def test_file_is_not_removed_while_seeded(bench: Bench) -> None:
    bench.join("a")
    file = bench.seed("f", 6)
    with pytest.raises(WrongState, match="being seeded"):
        remove(bench, file)


def test_deliveries_end_before_the_file_is_gone(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    assert bench.contribute(bench.frame(b, file, 3, 6))
    [delivery] = bench.delivered(a)
    remove(bench, file)
    assert b"".join(delivery.views) == bench.data[file.file_id][3072:]
    assert file.file_id in bench.server.catalogue.files
    bench.sent(a, delivery.number)
    assert bench.server.catalogue.files == {}
    assert bench.server.cache.used_chunks == 0
    assert [bench.machine.demand.existing_state(member, file.file_id) for member in (a, b)] == [None, None]
    assert bench.quota_used_chunks(a) == 0


def test_complete_file_is_removed_during_a_delivery(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    assert bench.contribute(bench.frame(b, file, 3, 6))
    [delivery] = bench.delivered(a)
    for member in (a, b):
        bench.reach(member, file, Milestone.COMPLETE)
    assert file.is_complete
    remove(bench, file)
    assert not file.is_complete
    assert file.file_id in bench.server.catalogue.files
    bench.sent(a, delivery.number)
    assert bench.server.catalogue.files == {}


def test_contribution_ends_before_the_file_is_gone(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    frame = bench.frame(b, file, 3, 6)
    reception = bench.start(frame)
    assert reception is not None
    remove(bench, file)
    assert file.file_id in bench.server.catalogue.files
    bench.server.contribution_received(reception, bench.now)
    assert bench.delivered(a) == []
    assert bench.server.catalogue.files == {}
    assert bench.server.cache.used_chunks == 0


def test_aborted_contribution_lets_the_file_go(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    frame = bench.frame(b, file, 3, 6)
    reception = bench.start(frame)
    assert reception is not None
    remove(bench, file)
    bench.server.contribution_aborted(reception, bench.now)
    bench.live(60_000_000_000)
    assert bench.server.catalogue.files == {}
    assert bench.server.cache.used_chunks == 0


def test_removed_file_is_neither_served_nor_announced(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    assert bench.start(bench.frame(b, file, 3, 6)) is not None
    remove(bench, file)
    bench.server.poll()
    bench.ask(a, file, (3, 6))
    assert bench.server.drop_counts[DropReason.UNKNOWN_FILE] == 1
    late = bench.join("c")
    assert bench.delivered(late) == []
    source = bench.join("source", is_source=True)
    with pytest.raises(WrongState, match="moment"):
        bench.server.catalogue.announce(file.manifest, source.session)
    with pytest.raises(NotFound):
        bench.reach(a, file, Milestone.COMPLETE)
    assert bench.server.catalogue.needed_from({"a"}) == []


def test_removed_file_can_be_seeded_again(bench: Bench) -> None:
    a, b, file = begun(bench)
    bench.ask(a, file, (3, 6))
    assert bench.contribute(bench.frame(b, file, 3, 6))
    [delivery] = bench.delivered(a)
    bench.sent(a, delivery.number)
    remove(bench, file)
    bench.server.poll()
    again = bench.exchange("f", 6)
    assert again is not file
    bench.ask(a, again, (3, 6))
    assert [asked.start for asked in bench.asked("b")] == [3]


def test_holdings_from_joining_end_with_the_removal(bench: Bench) -> None:
    a, _, file = begun(bench)
    bench.server.member_left(a.session, "it left", bench.now)
    again = bench.join("a", held={file.file_id: HeldChunks(RangeSet([(0, 5)]), complete=False)})
    assert list(file.availability.held[again.name]) == [(0, 5)]
    remove(bench, file)
    anew = bench.seed("f", 6)
    assert anew.file_id == file.file_id
    assert not anew.availability.held.get(again.name), "it deleted that"


def test_reports_on_an_old_division_are_refused(bench: Bench) -> None:
    a, _, file = begun(bench)
    remove(bench, file)
    anew = bench.seed("f", 6)
    assert (anew.file_id, anew.shares.ranges_of("a")) == (file.file_id, file.shares.ranges_of("a"))
    assert anew.division != file.division
    catalogue, count = bench.server.catalogue, sum(share.chunk_count for share in anew.shares.ranges_of("a"))
    for milestone in Milestone:
        report = ReportMilestone(file.file_id, milestone, count, file.division)
        with pytest.raises(NotFound, match="divided again"):
            catalogue.milestone_reached(a.session, report, bench.now)
    with pytest.raises(NotFound, match="divided again"):
        catalogue.file_declined(a.session, file.file_id, "no room", bench.now, division=file.division)
    assert not anew.availability.held.get("a")
    report = ReportMilestone(file.file_id, Milestone.SHARE_HELD, count, anew.division)
    catalogue.milestone_reached(a.session, report, bench.now)
    assert list(anew.availability.held["a"]) == list(anew.shares.ranges_of("a"))
