"""The server counts dropped inputs by reason, and caches no part of them."""

from __future__ import annotations

from pspd.core.effects.server import FileResumed, FileStalled, VerifyFile
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.wire.datagrams import Hello, HelloAck, Request, encode_datagram
from pspd.core.wire.frames import Frame
from pspd.core.wire.header import DropReason, Kind
from tests.core.bench import Bench

UNKNOWN = 0xDEAD


class TestDrops:
    def drops(self, bench: Bench) -> list[tuple[DropReason, str]]:
        found = [(drop.reason, drop.origin) for drop in bench.effects(InputDropped)]
        assert sum(bench.server.drop_counts.values()) == len(found)
        assert all(bench.server.drop_counts[reason] for reason, _ in found)
        return found

    def test_malformed_datagrams_are_dropped(self) -> None:
        bench = Bench()
        member = bench.join("a")
        good = encode_datagram(Hello(member.session, 2, 0))
        bench.server.receive_datagram(b"", ("x", 5), bench.now)
        bench.server.receive_datagram(bytes(1201), ("x", 5), bench.now)
        bench.server.receive_datagram(b"no" + good[2:], ("x", 5), bench.now)
        bench.server.receive_datagram(b"PS\x63" + good[3:], ("x", 5), bench.now)
        bench.server.receive_datagram(good + b"?", ("x", 5), bench.now)
        assert self.drops(bench) == [
            (reason, "x:5")
            for reason in (
                DropReason.TOO_SHORT,
                DropReason.TOO_LONG,
                DropReason.BAD_MAGIC,
                DropReason.BAD_VERSION,
                DropReason.BAD_LENGTH,
            )
        ]

    def test_wrong_kind_or_unknown_session_is_dropped(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.send(member, HelloAck(member.session, 1, 5000))
        bench.send(member, Hello(UNKNOWN, 1, 0))
        assert self.drops(bench) == [(DropReason.UNKNOWN_KIND, "a:1"), (DropReason.UNKNOWN_SESSION, "a:1")]

    def test_requests_for_unknown_files_or_ranges_are_dropped(self) -> None:
        bench = Bench()
        member = bench.join("a")
        file = bench.exchange("f", 4)
        source = bench.join("s", is_source=True)
        bench.send(member, Request(member.session, bytes(32), 1, 0, 1, ()))
        bench.ask(source, file, (0, 1))
        bench.ask(member, file, (0, 5))
        assert self.drops(bench) == [
            (DropReason.UNKNOWN_FILE, "a"),
            (DropReason.UNKNOWN_FILE, "s"),
            (DropReason.BAD_RANGE, "a"),
        ]

    def test_stale_request_is_dropped(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.last_request -= 1
        bench.ask(a, file, (2, 3))
        assert self.drops(bench) == [(DropReason.STALE, "a")]

    def test_link_of_an_unknown_session_is_refused(self) -> None:
        bench = Bench()
        assert not bench.server.link_opened(UNKNOWN, bench.now)
        bench.server.link_closed(UNKNOWN, bench.now)
        assert self.drops(bench) == [(DropReason.UNKNOWN_SESSION, "link of session 000000000000dead")]

    def test_dropped_connection_is_counted(self) -> None:
        bench = Bench()
        bench.server.connection_dropped(DropReason.BAD_MAGIC, "x:5")
        assert self.drops(bench) == [(DropReason.BAD_MAGIC, "x:5")]

    def test_invalid_contributions_are_dropped_and_not_cached(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        good = bench.frame(b, file, 2, 4)
        frames = [
            Frame(Kind.DELIVERY, b.session, file.file_id, 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, UNKNOWN, file.file_id, 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, b.session, bytes(32), 2, 4, good.length),
            Frame(Kind.CONTRIBUTION, b.session, file.file_id, 2, 5, good.length),
            Frame(Kind.CONTRIBUTION, b.session, file.file_id, 2, 4, good.length + 1),
            bench.frame(b, file, 2, 4, number=0),
            bench.frame(b, file, 2, 4, number=1),
        ]
        assert [bench.start(frame) for frame in frames] == [None] * len(frames)
        assert self.drops(bench) == [
            (DropReason.UNKNOWN_KIND, "somewhere"),
            (DropReason.UNKNOWN_SESSION, "somewhere"),
            (DropReason.UNKNOWN_FILE, "b"),
            (DropReason.BAD_RANGE, "b"),
            (DropReason.BAD_RANGE, "b"),
            (DropReason.UNSOLICITED, "b"),
            (DropReason.UNSOLICITED, "b"),
        ]
        assert bench.server.cache.used_chunks == 0
        assert file.traffic.duplicate_bytes == 2 * good.length
        bench.ask(a, file, (2, 4))  # valid contributions are still accepted
        assert bench.contribute(good)

    def test_first_copy_is_received_and_duplicates_are_counted(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        first, second = bench.frame(b, file, 2, 4), bench.frame(a, file, 2, 4)
        reception = bench.start(first)
        assert reception is not None
        assert bench.start(second) is None  # the first is being received
        assert bench.start(bench.frame(b, file, 2, 3)) is None  # a part of the same range
        bench.server.poll()
        bench.server.contribution_aborted(reception, bench.now)
        assert bench.effects(InputDropped) == [InputDropped(DropReason.ABORTED, "b")]
        assert bench.contribute(second)
        assert not bench.contribute(first)  # the range is cached
        assert bench.server.drop_counts == {DropReason.DUPLICATE: 3, DropReason.ABORTED: 1}
        assert bench.server.cache.used_chunks == 2

    def test_corrupt_contribution_is_fetched_from_another_holder(self) -> None:
        bench = Bench()
        a, b, c = bench.join("a"), bench.join("b"), bench.join("c")
        file = bench.exchange("f", 6)
        bench.reach(c, file, Milestone.COMPLETE)
        bench.ask(a, file, (2, 4))
        assert [asked.responder for asked in bench.asked("a")] == [b.session]
        assert bench.contribute(bench.frame(b, file, 2, 4), good=False)
        assert self.drops(bench) == [(DropReason.CORRUPT, "b")]
        assert file.traffic.corrupt_bytes == 2048
        assert bench.server.cache.cached(file.file_id, 0, 6) == []
        assert not file.availability.held["b"].within(2, 4)
        assert file.availability.available.chunk_count == 6
        bench.pass_time(SERVER_TUNING.fetch_rto_min_ns * 3 // 2)
        assert bench.asked("a")[0].responder == c.session
        assert bench.contribute(bench.frame(c, file, 2, 4, number=2))
        assert [deliver.frame.start for deliver in bench.delivered(a)] == [2]

    def test_corrupt_last_holder_stalls_the_file(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4), good=False)
        assert bench.effects(FileStalled) == [FileStalled(file.file_id, "f", ((Range(2, 4), ""),))]
        bench.reach(b, file, Milestone.COMPLETE)
        assert bench.effects(FileResumed) == [FileResumed(file.file_id, "f")]

    def test_request_for_held_chunks_removes_them(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (1, 4))
        assert bench.effects(FileStalled)[0].missing == ((Range(1, 2), ""),)
        assert list(file.availability.held["a"]) == [Range(0, 1)]

    def test_request_overtaken_by_a_complete_report_removes_nothing(self) -> None:
        bench = Bench()
        a, _ = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.reach(a, file, Milestone.COMPLETE)
        bench.ask(a, file, (1, 4))  # sent before the report
        assert bench.effects(FileStalled) == []
        assert list(file.availability.held["a"]) == [Range(0, 4)]
        assert file.availability.min_holder_count() == 1

    def test_sender_of_corrupt_bytes_must_verify(self) -> None:
        bench = Bench()
        a, b, c = (bench.join(name) for name in "abc")
        file = bench.exchange("f", 6)
        bench.ask(a, file, (2, 4), (4, 6))
        bench.server.poll()
        bench.contribute(bench.frame(b, file, 2, 4), good=False)
        bench.contribute(bench.frame(c, file, 4, 6))
        assert bench.effects(VerifyFile) == [VerifyFile(b.session, file.file_id)]

    def test_member_that_joins_after_verification_is_a_holder(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        bench.contribute(bench.frame(b, file, 2, 4), good=False)
        assert file.availability.missing_ranges() == [(Range(2, 4), "")]
        b = bench.join("b", held={file.file_id: HeldChunks(RangeSet([(3, 4)]), complete=False)})
        assert file.availability.missing_ranges() == [(Range(2, 3), "")]
        bench.live(10 * SECOND_NS)  # the fetch of the whole range is abandoned
        assert [(x.start, x.stop, x.responder) for x in bench.asked("a")][-1] == (3, 4, b.session)

    def test_contribution_of_a_member_that_left_is_used(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        reception = bench.start(frame)
        assert reception is not None
        bench.server.member_left(b.session, "gone", bench.now)
        data = bench.data[file.file_id][2048:]
        for view in reception.views:
            view[:], data = data[: len(view)], data[len(view) :]
        bench.server.contribution_received(reception, bench.now)
        assert len(bench.delivered(a)) == 1

    def test_corrupt_contribution_of_a_member_that_left_is_dropped(self) -> None:
        bench = Bench()
        a, b = bench.join("a"), bench.join("b")
        file = bench.exchange("f", 4)
        bench.ask(a, file, (2, 4))
        frame = bench.frame(b, file, 2, 4)
        reception = bench.start(frame)
        assert reception is not None
        bench.server.member_left(b.session, "gone", bench.now)
        bench.server.contribution_received(reception, bench.now)
        assert self.drops(bench)[-1] == (DropReason.CORRUPT, f"session {b.session:016x}")
