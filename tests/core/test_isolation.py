"""An error while the server serves one member does not affect the others. Refused reports change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from pspd.core.effects.server import (
    Deliver,
    EndSession,
    MemberFailed,
    MemberLeft,
    ReachabilityChanged,
    ServerEffect,
)
from pspd.core.effects.shared import Milestone, SendDatagram
from pspd.core.model.parameters import SECOND_NS
from pspd.core.model.ranges import Range
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.pending import Fetch, FetchTable
from pspd.core.server.request_state import Echo, RequestState
from pspd.core.server.sessions import Member
from pspd.core.server.shared_file import SharedFile
from pspd.core.wire.datagrams import Hello, Request
from pspd.core.wire.header import DropReason
from pspd.errors import NotFound, WrongState
from tests.core.bench import Bench


def exchange() -> tuple[Bench, dict[str, Member], SharedFile]:
    """Return a file of eight chunks. The clients a, b, c and d hold two chunks each."""
    bench = Bench(at_once=False)
    members = {name: bench.join(name) for name in "abcd"}
    return bench, members, bench.exchange("f", 8)


def outcome(effects: list[ServerEffect]) -> tuple[list[str], list[int]]:
    """Return the names of the members that failed, and the session numbers of the deliveries."""
    failed = [effect.name for effect in effects if isinstance(effect, MemberFailed)]
    return failed, [effect.session for effect in effects if isinstance(effect, Deliver)]


class TestServing:
    def test_fault_in_a_request_does_not_affect_other_requests(self) -> None:
        bench, members, file = exchange()
        undivided = SharedFile(file.manifest, "s")
        undivided.availability.add_arrived("d", [(0, 8)])
        requester = bench.machine.demand.requester(members["a"])
        requester.states[undivided.file_id] = RequestState(requester, undivided, bench.demand(file), FetchTable(), 16)
        for name in "abc":
            bench.ask(members[name], file, (6, 8))
        effects = bench.machine.poll()
        assert outcome(effects) == (["a"], [])
        assert [effect.name for effect in effects if isinstance(effect, MemberLeft)] == ["a"]
        assert list(bench.machine.members) == ["b", "c", "d"]
        bench.contribute(bench.frame(members["d"], file, 6, 8))
        assert outcome(bench.machine.poll()) == ([], [members["b"].session, members["c"].session])

    def test_fault_in_a_fan_out_does_not_affect_other_clients(self) -> None:
        bench, members, file = exchange()
        for name in "abc":
            bench.ask(members[name], file, (6, 8))
        bench.machine.poll()
        bench.state(members["a"], file).echoes.extend(cast(list[Echo], ["no echo", "no echo"]))
        bench.contribute(bench.frame(members["d"], file, 6, 8))
        assert outcome(bench.machine.poll()) == (["a"], [members["b"].session, members["c"].session])
        assert "a" not in bench.machine.members

    def test_fault_in_a_datagram_ends_that_session_alone(self) -> None:
        bench, members, file = exchange()
        del file.availability._arrived["a"]
        bench.send(members["a"], Request(members["a"].session, file.file_id, 1, 0, 9, (Range(6, 8),)))
        bench.send(members["b"], Hello(members["b"].session, 7, 1000))
        effects = bench.machine.poll()
        assert outcome(effects) == (["a"], [])
        assert [effect.session for effect in effects if isinstance(effect, EndSession)] == [members["a"].session]
        assert any(isinstance(effect, SendDatagram) and effect.address == ("b", 1) for effect in effects)
        assert bench.join("a").session != members["a"].session, "it may come back"

    def test_fault_while_a_request_is_served_ends_that_session_alone(self) -> None:
        bench, members, file = exchange()
        bench.ask(members["c"], file, (6, 8))
        bench.machine.poll()
        bench.contribute(bench.frame(members["d"], file, 6, 8))
        bench.machine.poll()
        for name in "ab":
            bench.ask(members[name], file, (6, 8))
        bench.state(members["a"], file).echoes.extend(cast(list[Echo], ["no echo"]))
        assert outcome(bench.machine.poll()) == (["a"], [members["b"].session])
        assert "a" not in bench.machine.members

    @pytest.mark.parametrize("is_connected", [True, False])
    def test_fault_in_a_contribution_ends_its_senders_session(self, is_connected: bool) -> None:
        bench, members, file = exchange()
        bench.ask(members["a"], file, (6, 8))
        bench.machine.poll()
        reception = bench.start(bench.frame(members["d"], file, 6, 8))
        assert reception is not None
        reception = reception._replace(fetch=cast(Fetch, None))
        if is_connected:
            bench.server.contribution_received(reception, bench.now)
            assert outcome(bench.machine.poll()) == (["d"], [])
        else:
            bench.server.member_left(members["d"].session, "it left", bench.now)
            with pytest.raises((AttributeError, TypeError)):
                bench.server.contribution_received(reception, bench.now)
            assert outcome(bench.machine.poll()) == ([], [])

    def test_member_may_leave_before_the_next_poll(self) -> None:
        bench = Bench(tuning=replace(SERVER_TUNING, reachability_ns=5 * SECOND_NS), at_once=False)
        member = bench.join("a")
        file = bench.exchange("f", 2)
        bench.pass_time(5 * SECOND_NS)
        bench.ask(member, file, wants_ack=True)
        bench.last_request += 2 * SERVER_TUNING.request_number_jump_max
        bench.ask(member, file)
        bench.server.member_left(member.session, "it left", bench.now)
        effects = bench.machine.poll()
        assert [effect.reason for effect in effects if isinstance(effect, EndSession)] == ["it left"]
        assert [effect.name for effect in effects if isinstance(effect, ReachabilityChanged)] == ["a"]
        assert not any(isinstance(effect, SendDatagram) for effect in effects)


class TestReports:
    def announced(self) -> tuple[Bench, Member, Member, SharedFile]:
        bench = Bench()
        member, _, source = bench.join("a"), bench.join("b"), bench.join("s", is_source=True)
        return bench, member, source, bench.server.catalogue.announce(bench.manifest("f", 8), source.session)

    @pytest.mark.parametrize("milestone", Milestone)
    def test_report_on_an_announced_file_is_refused(self, milestone: Milestone) -> None:
        bench, member, _, file = self.announced()
        with pytest.raises(NotFound):
            bench.reach(member, file, milestone)
        assert bench.machine.demand.requester(member).states == {}
        assert file.recipients.complete_names == set()

    def test_withdrawal_deletes_requests(self) -> None:
        bench, member, source, file = self.announced()
        bench.state(member, file)
        bench.server.lifecycle.withdraw(file, "s")
        assert bench.machine.demand.requester(member).states == {}
        bench.server.catalogue.announce(bench.manifest("f", 8), source.session)
        again = bench.server.catalogue.divide(bench.manifest("f", 8, 2), source.session, bench.now)
        bench.ask(member, again, (0, 4))
        assert [asked[:2] for asked in bench.asked("s")] == [(0, 4)]

    def test_source_may_not_report(self) -> None:
        bench = Bench()
        bench.join("a")
        file = bench.seed("f", 8)
        source = bench.server.members["source of f"]
        with pytest.raises(WrongState):
            bench.reach(source, file, Milestone.COMPLETE)
        with pytest.raises(WrongState):
            bench.server.catalogue.file_declined(source.session, file.file_id, "no room", bench.now)
        assert file.availability.available.covers(0, 8)

    def test_refused_report_is_counted(self) -> None:
        bench = Bench()
        member = bench.join("a")
        bench.server.report_dropped(member.session)
        assert bench.server.drop_counts == {DropReason.UNKNOWN_FILE: 1}
