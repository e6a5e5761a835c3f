"""Request numbers: a number that is too high ends the session, and no number exceeds its field on the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import EndSession, MemberLeft
from pspd.core.effects.shared import InputDropped, Milestone
from pspd.core.model.parameters import FAST
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.sessions import REQUEST_NUMBER_LAST, Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.timing.rtt import RTO_MAX_NS
from pspd.core.wire.datagrams import HELLO_NUMBER_MAX, REQUEST_NUMBER_MAX, REQUEST_RANGES_MAX, Hello, Request
from pspd.core.wire.header import DropReason
from pspd.errors import SessionUnknown
from tests.core.alone import Client, manifest_of
from tests.core.bench import Bench


def ask(bench: Bench, member: Member, file: SharedFile, number: int) -> None:
    bench.send(member, Request(member.session, file.file_id, number, 0, 100, (Range(2, 4),)))


def exchange() -> tuple[Bench, Member, SharedFile]:
    bench = Bench()
    member, _ = bench.join("a"), bench.join("b")
    file = bench.exchange("f", 4)
    return bench, member, file


class TestServer:
    def test_largest_plausible_jump_is_accepted(self) -> None:
        bench, member, file = exchange()
        ask(bench, member, file, 1)
        ask(bench, member, file, 1 + SERVER_TUNING.request_number_jump_max)
        assert bench.server.drop_counts == {}
        assert file.traffic.request_datagrams == 2

    def test_larger_jump_ends_the_session(self) -> None:
        bench, member, file = exchange()
        ask(bench, member, file, 1)
        ask(bench, member, file, 2 + SERVER_TUNING.request_number_jump_max)
        effects = bench.server.poll()
        (reason,) = [effect.reason for effect in effects if isinstance(effect, EndSession)]
        assert (
            reason
            == f"request number {2 + SERVER_TUNING.request_number_jump_max} is more than 1048576 ahead of 1: join again"
        )
        assert InputDropped(DropReason.BAD_NUMBER, "a") in effects
        assert MemberLeft("a", reason) in effects
        assert bench.server.drop_counts == {DropReason.BAD_NUMBER: 1}
        again = bench.join("a")
        ask(bench, again, file, 1)
        assert file.traffic.request_datagrams == 2, "its requests count from 1 again"

    def test_jump_for_an_unknown_file_ends_the_session(self) -> None:
        bench, member, _ = exchange()
        bench.send(member, Request(member.session, bytes(32), REQUEST_NUMBER_MAX, 0, 1, ()))
        assert list(bench.server.members) == ["b"]

    def test_all_files_share_one_sequence(self) -> None:
        bench, member, file = exchange()
        other = bench.exchange("g", 4)
        ask(bench, member, file, SERVER_TUNING.request_number_jump_max)
        ask(bench, member, other, 2 * SERVER_TUNING.request_number_jump_max)
        ask(bench, member, file, SERVER_TUNING.request_number_jump_max + 1)
        assert bench.server.drop_counts == {}

    def test_session_ends_before_numbers_wrap(self) -> None:
        bench, member, file = exchange()
        member.request_number = REQUEST_NUMBER_LAST - 1
        ask(bench, member, file, REQUEST_NUMBER_LAST)
        assert "a" in bench.server.members
        ask(bench, member, file, REQUEST_NUMBER_LAST + 1)
        assert "a" not in bench.server.members

    def test_jump_in_a_report_ends_the_session(self) -> None:
        bench, member, file = exchange()
        bench.server.poll()
        report = ReportMilestone(file.file_id, Milestone.COMPLETE, 0, request_number=REQUEST_NUMBER_MAX)
        with pytest.raises(SessionUnknown):
            bench.server.catalogue.milestone_reached(member.session, report, bench.now)
        assert len(bench.effects(EndSession)) == 1
        assert "a" not in file.recipients.complete_names


class TestClient:
    def test_number_stays_at_the_largest(self) -> None:
        client = Client()
        client.machine._request_number = REQUEST_NUMBER_MAX - 1
        client.assign(manifest_of(10), (0, 5))
        client.pass_time(2 * RTO_MAX_NS)
        assert {request.number for request in client.requests()} == {REQUEST_NUMBER_MAX}

    def test_new_session_counts_from_one(self) -> None:
        client = Client()
        client.machine._request_number = REQUEST_NUMBER_MAX - 1
        client.assign(manifest_of(10), (0, 5))
        client.datagrams()
        client.machine.joined(78, ("server", 1), FAST, client.now)
        client.assign(manifest_of(10), (0, 5))
        assert [request.number for request in client.requests()] == [1]

    def test_hello_number_wraps_to_one(self) -> None:
        client = Client()
        client.machine.hellos._number = HELLO_NUMBER_MAX - 1
        client.datagrams()
        client.pass_time(4 * RTO_MAX_NS)
        numbers = [hello.number for hello in client.datagrams() if isinstance(hello, Hello)]
        assert numbers[:3] == [HELLO_NUMBER_MAX, 1, 2]

    @pytest.mark.parametrize(("stated", "named"), [(0, 1), (1000, REQUEST_RANGES_MAX)])
    def test_number_of_ranges_is_bounded(self, stated: int, named: int) -> None:
        client = Client(replace(FAST, request_ranges=stated))
        held = tuple((chunk, chunk + 1) for chunk in range(0, 400, 2))
        client.assign(manifest_of(400), (0, 400), exchange=True, held=held)
        (request,) = client.requests()
        assert len(request.ranges) == named
