"""Translations between types of the core and messages of the API are complete and lose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from pspd.core.cache.cache import Cache
from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.server import Assign, EndCause, EndSession, RemoveFile, StartExchange, VerifyFile
from pspd.core.effects.shared import Milestone
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import DIGEST_BYTES, Manifest
from pspd.core.model.parameters import PROFILES, SECOND_NS, Order, Parameters
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import HeldChunks
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.server.machine import ServerMachine
from pspd.core.server.shared_file import SharedFile, Traffic
from pspd.core.wire.datagrams import Hello, Request, encode_datagram
from pspd.errors import BadArgument, BadName, LimitReached
from pspd.rpc import translate
from pspd.rpc.server import status_messages
from pspd.rpc.translate import Declined, Report
from pspd.store.digests import blake3_digest
from pspd.v1 import membership_service_pb2 as membership
from pspd.v1 import network_pb2 as pb
from tests.core.samples import sessions

FAST = PROFILES["fast"]


def manifest_of(size_bytes: int, share_count: int = 0, name: str = "a.bin") -> Manifest:
    data = Random(size_bytes).randbytes(size_bytes)

    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    manifest = Manifest.build(name, size_bytes, read_at, blake3_digest)
    return manifest.divided(share_count, read_at, blake3_digest) if share_count else manifest


def over_the_wire(message: pb.Manifest) -> pb.Manifest:
    return pb.Manifest.FromString(message.SerializeToString())


def all_fields(descriptor: Descriptor, prefix: str = "") -> set[str]:
    """Return the paths of all fields of a kind of message, with those of the messages in it."""
    found = set()
    for each in descriptor.fields:
        found.add(prefix + each.name)
        if each.message_type is not None:
            found |= all_fields(each.message_type, f"{prefix}{each.name}.")
    return found


def filled_fields(message: Message, prefix: str = "") -> set[str]:
    """Return the paths of the fields of a message that are not zero or empty, with those of the messages in it."""
    found = set()
    for each, value in message.ListFields():
        found.add(prefix + each.name)
        for inner in value if isinstance(value, Sequence) else [value]:
            if isinstance(inner, Message):
                found |= filled_fields(inner, f"{prefix}{each.name}.")
    return found


PIECES, WHOLE = bytes(32), bytes(31) + b"w"


class TestManifest:
    @pytest.mark.parametrize("share_count", [0, 1, 3, 7, 50])
    @pytest.mark.parametrize("size_bytes", [0, 1, 1024, 1025, 300_000, 3_000_000])
    def test_survives_translation(self, size_bytes: int, share_count: int) -> None:
        manifest = manifest_of(size_bytes, share_count, "Übung 1.bin")
        message = over_the_wire(translate.manifest_to_pb(manifest))
        assert translate.manifest_from_pb(message, blake3_digest) == manifest

    def test_folder_survives_translation(self) -> None:
        manifest = Manifest.parse("data", 0, b"", blake3_digest, is_folder=True)
        message = over_the_wire(translate.manifest_to_pb(manifest))
        assert translate.manifest_from_pb(message, blake3_digest) == manifest
        assert manifest.file_id != Manifest.parse("data", 0, b"", blake3_digest).file_id

    @pytest.mark.parametrize("mode", [0o400, 0o644, 0o755])
    def test_mode_survives_translation(self, mode: int) -> None:
        manifest = Manifest.parse("run.sh", 0, b"", blake3_digest, mode=mode)
        message = over_the_wire(translate.manifest_to_pb(manifest))
        assert translate.manifest_from_pb(message, blake3_digest) == manifest
        assert message.mode == (0 if mode == 0o644 else mode)

    def test_id_is_computed_not_believed(self) -> None:
        """The id is computed again, as it is not a field of the message."""
        assert "file_id" not in pb.Manifest.DESCRIPTOR.fields_by_name
        lie = replace(manifest_of(5000), file_id=bytes(32))
        assert translate.manifest_from_pb(translate.manifest_to_pb(lie), blake3_digest) == manifest_of(5000)

    @pytest.mark.parametrize(
        ("changed", "error"),
        [
            (pb.Manifest(name="a/b"), BadName),
            (pb.Manifest(name=""), BadName),
            (pb.Manifest(name="a", size_bytes=1), BadArgument),
            (pb.Manifest(name="a", block_digests=bytes(DIGEST_BYTES)), BadArgument),
            (pb.Manifest(name="a", size_bytes=1, block_digests=bytes(DIGEST_BYTES - 1)), BadArgument),
            (pb.Manifest(name="a", size_bytes=2**63, block_digests=bytes(DIGEST_BYTES)), BadArgument),
            (pb.Manifest(name="a", share_count=2**31), BadArgument),
            (pb.Manifest(name="a", share_count=2, cut_digests=bytes(DIGEST_BYTES)), BadArgument),
            (pb.Manifest(name="a", mode=0o4755), BadArgument),
            (pb.Manifest(name="a", mode=0o077), BadArgument),
            (pb.Manifest(name="a", mode=2**32 - 1), BadArgument),
            (pb.Manifest(name="a", mode=0o755, folder=True), BadArgument),
        ],
    )
    def test_malformed_is_refused(self, changed: pb.Manifest, error: type[Exception]) -> None:
        with pytest.raises(error):
            translate.manifest_from_pb(changed, blake3_digest)


class TestParameters:
    @pytest.mark.parametrize("order", Order)
    @pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.profile)
    def test_survive_translation(self, profile: Parameters, order: Order) -> None:
        parameters = replace(profile, order=order)
        message = pb.Parameters.FromString(translate.parameters_to_pb(parameters).SerializeToString())
        assert translate.parameters_from_pb(message) == parameters

    def test_each_parameter_has_a_field(self) -> None:
        names = {field.name for field in fields(Parameters)}
        assert set(pb.Parameters.DESCRIPTOR.fields_by_name) == names

    def test_every_order_of_the_api_is_known(self) -> None:
        values = {value for value in pb.RequestOrder.values() if value != pb.REQUEST_ORDER_UNSPECIFIED}
        orders = {translate.parameters_to_pb(replace(FAST, order=order)).order for order in Order}
        assert orders == values

    @pytest.mark.parametrize("value", [pb.REQUEST_ORDER_UNSPECIFIED, 77])
    def test_unknown_order_is_the_cursor(self, value: pb.RequestOrder) -> None:
        assert translate.parameters_from_pb(pb.Parameters(order=value)).order is Order.CURSOR


class TestReports:
    @pytest.mark.parametrize(
        "report",
        [
            *(ReportMilestone(bytes(32), milestone, 7, 3, 12) for milestone in Milestone),
            Declined(bytes(32), "no", 3, still_holds=True),
        ],
    )
    def test_survive_translation(self, report: Report) -> None:
        back = translate.report_from_pb(translate.report_to_pb(report))
        assert back == report
        assert repr(back) == repr(report), "also what does not make them another report"

    def test_invalid_text_in_a_reason_is_replaced(self) -> None:
        assert translate.report_to_pb(Declined(bytes(32), "no room in \udcff")).reason == "no room in ?"

    def test_every_milestone_of_the_api_is_known(self) -> None:
        ours = {translate.report_to_pb(ReportMilestone(bytes(32), milestone, 0)).milestone for milestone in Milestone}
        others = {membership.FILE_MILESTONE_UNSPECIFIED, membership.FILE_MILESTONE_DECLINED}
        assert ours | others == set(membership.FileMilestone.values())
        assert not ours & others

    @pytest.mark.parametrize("value", [0, 77])
    def test_unknown_milestones_are_ignored(self, value: int) -> None:
        assert translate.report_from_pb(membership.FileReport(milestone=cast("Any", value))) is None


SPANS = st.tuples(st.integers(0, 2**32 - 2), st.integers(1, 2**20)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], 2**32 - 1))
)


class TestHoldings:
    @settings(max_examples=40)
    @given(st.dictionaries(st.binary(min_size=32, max_size=32), st.tuples(st.lists(SPANS), st.booleans()), max_size=5))
    def test_survive_translation(self, known: dict[bytes, tuple[list[tuple[int, int]], bool]]) -> None:
        held = {file_id: HeldChunks(RangeSet(spans), complete) for file_id, (spans, complete) in known.items()}
        messages = [pb.Holding.FromString(each.SerializeToString()) for each in translate.holdings_to_pb(held)]
        assert translate.holdings_from_pb(messages) == held

    def test_empty_ranges_are_ignored(self) -> None:
        ranges = [pb.ChunkRange(start=1, stop=3), pb.ChunkRange(start=5, stop=5)]
        held = translate.holdings_from_pb([pb.Holding(file_id=PIECES, ranges=ranges)])
        assert held == {PIECES: HeldChunks(RangeSet([(1, 3)]), False)}

    @pytest.mark.parametrize("ranges", [[(9, 2)], [(5, 7), (1, 3)], [(1, 5), (4, 6)]])
    def test_ranges_out_of_order_are_refused(self, ranges: list[tuple[int, int]]) -> None:
        told = [pb.ChunkRange(start=start, stop=stop) for start, stop in ranges]
        with pytest.raises(BadArgument):
            translate.holdings_from_pb([pb.Holding(file_id=PIECES, ranges=told)])

    def test_ranges_keep_their_order(self) -> None:
        spans = (Range(5, 9), Range(0, 2))
        assert translate.ranges_from_pb(map(translate.range_to_pb, spans)) == spans


class TestMemberEvents:
    def test_every_effect_has_its_own_event(self) -> None:
        manifest = manifest_of(5000, 2)
        assign = translate.member_event_to_pb(Assign(1, manifest, (Range(0, 2), Range(3, 4)), True, 5))
        assert translate.manifest_from_pb(assign.file_assigned.manifest, blake3_digest) == manifest
        assert translate.ranges_from_pb(assign.file_assigned.shares) == (Range(0, 2), Range(3, 4))
        assert assign.file_assigned.exchange_started
        start = translate.member_event_to_pb(StartExchange(1, manifest.file_id))
        assert start.exchange_started.file_id == manifest.file_id
        suspect = translate.member_event_to_pb(VerifyFile(1, manifest.file_id))
        assert suspect.file_suspected.file_id == manifest.file_id
        remove = translate.member_event_to_pb(RemoveFile(1, manifest.file_id))
        assert remove.file_removed.file_id == manifest.file_id
        end = translate.member_event_to_pb(EndSession(1, "it left", EndCause.LEFT))
        assert end.session_ended.reason == "it left"
        assert end.session_ended.cause == membership.SESSION_END_CAUSE_LEFT
        stop = translate.member_event_to_pb(None)
        events = [message.WhichOneof("event") for message in (assign, start, suspect, remove, end, stop)]
        assert set(events) == {f.name for f in membership.AttendResponse.DESCRIPTOR.oneofs_by_name["event"].fields}


class TestStatusMessages:
    def test_every_field_of_the_cache_is_filled(self) -> None:
        cache = Cache(100)
        cache.reserve(PIECES, 0, 3)
        cache.release(PIECES, 0, 1)
        cache.count_hits(4)
        cache.count_aggregated(5)
        cache.eviction_count = 6
        message = status_messages.cache_to_pb(cache)
        assert filled_fields(message) == all_fields(pb.Cache.DESCRIPTOR)
        assert message == pb.Cache(
            capacity_bytes=100 * 1024,
            used_bytes=2 * 1024,
            high_water_bytes=3 * 1024,
            hit_count=4,
            miss_count=3,
            join_count=5,
            eviction_count=6,
        )

    def machine(self) -> ServerMachine:
        machine = ServerMachine(FAST, 64, blake3_digest, 1, sessions(1))
        for name in ("bob", "amy"):
            machine.member_joined(name, name.encode().ljust(16), 0, is_source=False, delivery_port=0, held={})
        machine.member_joined("src", b"s" * 16, 0, is_source=True, delivery_port=0, held={})
        for member in machine.members.values():
            machine.receive_datagram(encode_datagram(Hello(member.session, 1, 0)), ("10.0.0.1", 4000), 0)
        return machine

    def test_every_field_of_a_client_is_filled(self) -> None:
        machine = self.machine()
        for member in machine.members.values():
            machine.sessions.note_srtt(member, 1500)
        amy, _, source = status_messages.clients_to_pb(machine)
        assert filled_fields(source) == all_fields(pb.Client.DESCRIPTOR)
        assert (amy.name, amy.address, amy.srtt_ms, source.source) == ("amy", "10.0.0.1:4000", 1.5, True)

    def test_member_is_lost_until_its_first_datagram(self) -> None:
        machine = ServerMachine(FAST, 64, blake3_digest, 1, sessions(1))
        member = machine.member_joined("amy", b"a" * 16, 0)
        assert [each.state for each in status_messages.clients_to_pb(machine)] == [pb.CLIENT_STATE_LOST]
        machine.receive_datagram(encode_datagram(Hello(member.session, 1, 0)), ("10.0.0.1", 4000), 0)
        assert [each.state for each in status_messages.clients_to_pb(machine)] == [pb.CLIENT_STATE_CONNECTED]

    def file(self, machine: ServerMachine, size_bytes: int = 5000) -> SharedFile:
        session = machine.members["src"].session
        machine.catalogue.announce(manifest_of(size_bytes), session)
        return machine.catalogue.divide(manifest_of(size_bytes, 2), session, SECOND_NS)

    def test_clients_are_listed_by_name_with_state(self) -> None:
        machine = self.machine()
        machine.member_left(machine.members["bob"].session, "it left", 0)
        shown = [(each.name, each.state, each.source) for each in status_messages.clients_to_pb(machine)]
        assert shown == [
            ("amy", pb.CLIENT_STATE_CONNECTED, False),
            ("bob", pb.CLIENT_STATE_LOST, False),
            ("src", pb.CLIENT_STATE_CONNECTED, True),
        ]

    def test_missing_client_is_given_up_after_a_lease(self) -> None:
        machine = self.machine()
        file = self.file(machine)
        machine.member_left(machine.members["bob"].session, "it left", SECOND_NS)
        for elapsed_ns, given_up in ((machine.sessions.lease_ns - 1, False), (machine.sessions.lease_ns, True)):
            message = status_messages.file_to_pb(machine, file, SECOND_NS + elapsed_ns, with_clients=False)
            shown = [(each.name, each.given_up) for each in message.missing_clients]
            assert shown == [("bob", given_up)]
        assert message.missing_clients[0].away_seconds == machine.sessions.lease_ns / SECOND_NS

    def test_unreachable_client_is_lost(self) -> None:
        machine = self.machine()
        bob = machine.members["bob"].session
        machine.link_opened(bob, 0)

        def states(now: int, *, heard: bool) -> dict[str, pb.ClientState]:
            """Return each member's state after all have renewed their leases and one has sent a hello."""
            for member in machine.members.values():
                machine.sessions.renew_lease(member.session, now)
            if heard:
                machine.receive_datagram(encode_datagram(Hello(bob, 1, 500)), ("10.0.0.1", 4000), now)
            machine.handle_timeout(now)
            return {each.name: each.state for each in status_messages.clients_to_pb(machine)}

        lost, connected = pb.CLIENT_STATE_LOST, pb.CLIENT_STATE_CONNECTED
        assert states(SERVER_TUNING.reachability_ns // 2, heard=True) == {
            "amy": connected,
            "bob": connected,
            "src": connected,
        }
        assert states(SERVER_TUNING.reachability_ns, heard=False) == {"amy": lost, "bob": connected, "src": lost}
        assert states(3 * SERVER_TUNING.reachability_ns // 2, heard=False) == {"amy": lost, "bob": lost, "src": lost}
        assert states(3 * SERVER_TUNING.reachability_ns, heard=True) == {"amy": lost, "bob": connected, "src": lost}

    @pytest.mark.parametrize("phase", Phase)
    @pytest.mark.parametrize("stalled", [False, True])
    def test_file_has_a_state_in_every_phase(self, phase: Phase, stalled: bool) -> None:
        machine = self.machine()
        file = self.file(machine)
        file.phase, file.is_stalled = phase, stalled
        states = {
            Phase.ANNOUNCED: pb.FILE_STATE_SEEDING,
            Phase.SEEDING: pb.FILE_STATE_SEEDING,
            Phase.SEEDED: pb.FILE_STATE_SEEDED,
            Phase.EXCHANGING: pb.FILE_STATE_DISTRIBUTING,
            Phase.REMOVED: pb.FILE_STATE_DISTRIBUTING,
        }
        expected = pb.FILE_STATE_STALLED if stalled else states[phase]
        assert status_messages.file_to_pb(machine, file, SECOND_NS, with_clients=False).state == expected

    def test_client_that_holds_up_a_seeding(self) -> None:
        machine = self.machine()
        file = self.file(machine)
        amy, bob = (machine.members[name] for name in ("amy", "bob"))
        counts = {name: sum(share.chunk_count for share in file.shares.ranges_of(name)) for name in ("amy", "bob")}
        held = {name: ReportMilestone(file.file_id, Milestone.SHARE_HELD, counts[name]) for name in counts}
        machine.catalogue.milestone_reached(bob.session, held["bob"], 2 * SECOND_NS)
        request = Request(amy.session, file.file_id, 1, 0, 100, tuple(file.shares.ranges_of("amy")))

        def shown(now: int) -> dict[str, tuple[bool, float | None]]:
            clients = status_messages.file_to_pb(machine, file, now, with_clients=True).clients
            return {
                each.name: (each.share_held, each.share_idle_seconds if each.HasField("share_idle_seconds") else None)
                for each in clients
            }

        assert shown(8 * SECOND_NS) == {"bob": (True, None), "amy": (False, 7.0)}
        machine.receive_datagram(encode_datagram(request), ("10.0.0.1", 4000), 9 * SECOND_NS)
        assert shown(12 * SECOND_NS) == {"bob": (True, None), "amy": (False, 3.0)}
        machine.catalogue.milestone_reached(amy.session, held["amy"], 13 * SECOND_NS)
        assert shown(14 * SECOND_NS) == {"bob": (True, None), "amy": (True, None)}

    def test_idle_time_counts_from_the_join_after_a_restart(self) -> None:
        before = self.machine()
        file = self.file(before)
        machine = ServerMachine(FAST, 64, blake3_digest, 1, sessions(1))
        machine.restore([file.record], ["bob", "amy"], 100 * SECOND_NS)
        amy = machine.member_joined("amy", b"amy".ljust(16), 101 * SECOND_NS)
        machine.receive_datagram(encode_datagram(Hello(amy.session, 1, 0)), ("10.0.0.1", 4000), 101 * SECOND_NS)
        restored = machine.catalogue.files[file.file_id]
        shown = status_messages.file_to_pb(machine, restored, 103 * SECOND_NS, with_clients=True)
        assert [(client.name, client.share_idle_seconds) for client in shown.clients] == [("amy", 2.0)]

    def test_file_message_lists_its_clients(self) -> None:
        machine = self.machine()
        file = self.file(machine)
        report = ReportMilestone(file.file_id, Milestone.COMPLETE, 0)
        machine.catalogue.milestone_reached(machine.members["bob"].session, report, 2 * SECOND_NS)
        machine.catalogue.file_declined(machine.members["amy"].session, file.file_id, "no room", 3 * SECOND_NS)
        machine.poll()
        shown = status_messages.file_to_pb(machine, file, 4 * SECOND_NS, with_clients=True)
        assert (shown.name, shown.size_bytes, shown.chunk_count) == ("a.bin", 5000, 5)
        assert (shown.client_count, shown.complete_client_count, shown.min_holder_count) == (1, 1, 1)
        assert shown.seeding_seconds == 3
        clients = {client.name: client for client in shown.clients}
        assert clients.keys() == {"amy", "bob"}
        assert clients["amy"].refusal == "no room"
        assert clients["bob"].complete
        assert clients["bob"].held_chunk_count == 5
        assert clients["bob"].share_chunk_count == 5
        assert translate.ranges_from_pb(clients["bob"].held_ranges) == (Range(0, 5),)
        assert not status_messages.file_to_pb(machine, file, 0, with_clients=False).clients

    def test_stalled_file_names_missing_chunks_and_holders(self) -> None:
        machine = self.machine()
        file = self.file(machine)
        machine.member_left(machine.members["src"].session, "it left", 2 * SECOND_NS)
        machine.poll()
        shown = status_messages.file_to_pb(machine, file, 2 * SECOND_NS, with_clients=False)
        assert shown.state == pb.FILE_STATE_STALLED
        assert [translate.ranges_from_pb([each.range]) for each in shown.missing_ranges] == [(Range(0, 5),)]

    def test_every_field_of_a_file_is_filled(self) -> None:
        """No file has all fields at once: one file lacks chunks in its seeding, the other one is complete."""
        of_network_status = {"rate_bytes_per_second", "eta_seconds"}  # tests/daemon/test_status.py
        filled = filled_fields(self.stalled_file_message()) | filled_fields(self.complete_file_message())
        assert filled == all_fields(pb.File.DESCRIPTOR) - of_network_status

    def stalled_file_message(self) -> pb.File:
        """Return the message of a file in seeding that has lost its source and the owner of its second share."""
        machine = self.machine()
        file = self.file(machine)
        amy = machine.members["amy"]
        share_chunk_count = sum(span.chunk_count for span in file.shares.ranges_of("amy"))
        held = ReportMilestone(file.file_id, Milestone.SHARE_HELD, share_chunk_count)
        machine.catalogue.milestone_reached(amy.session, held, 2 * SECOND_NS)
        for name in ("src", "amy"):
            machine.member_left(machine.members[name].session, "it left", 3 * SECOND_NS)
        machine.poll()
        machine.cache.reserve(file.file_id, 0, 2)
        now = 4 * SECOND_NS + machine.sessions.lease_ns
        return status_messages.file_to_pb(machine, file, now, with_clients=True)

    def complete_file_message(self) -> pb.File:
        """Return the message of a file that one client has and another one has declined, with every counter set."""
        machine = self.machine()
        file = self.file(machine)
        amy, bob = (machine.members[name] for name in ("amy", "bob"))
        for member in (amy, bob):
            share_chunk_count = sum(span.chunk_count for span in file.shares.ranges_of(member.name))
            held = ReportMilestone(file.file_id, Milestone.SHARE_HELD, share_chunk_count)
            machine.catalogue.milestone_reached(member.session, held, 2 * SECOND_NS)
        machine.poll()
        complete = ReportMilestone(file.file_id, Milestone.COMPLETE, 0)
        machine.catalogue.milestone_reached(bob.session, complete, 3 * SECOND_NS)
        machine.catalogue.file_declined(amy.session, file.file_id, "no room", 3 * SECOND_NS, still_holds=True)
        machine.poll()
        file.traffic = Traffic(**dict.fromkeys((counter.name for counter in fields(Traffic)), 1))
        file.manifest = replace(file.manifest, is_folder=True)
        file.held_back, file.cached_bytes_when_seeded = True, 1
        return status_messages.file_to_pb(machine, file, 4 * SECOND_NS, with_clients=True)

    def test_every_traffic_counter_is_translated(self) -> None:
        machine = self.machine()
        file = self.file(machine)
        figures = {field.name: number for number, field in enumerate(fields(Traffic), 1)}
        file.traffic = Traffic(**figures)
        shown = status_messages.file_to_pb(machine, file, 0, with_clients=False).traffic
        assert {name: getattr(shown, name) for name in pb.Traffic.DESCRIPTOR.fields_by_name} == figures


def test_client_reports_no_more_holdings_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "HELD_RANGES_MAX", 3)
    pieces = HeldChunks(RangeSet([(0, 1), (2, 3), (4, 5), (6, 7)]), complete=False)
    whole = HeldChunks(RangeSet([(0, 9)]), complete=True)
    said = translate.holdings_to_pb({PIECES: pieces, WHOLE: whole})
    assert translate.holdings_from_pb(said) == {
        WHOLE: whole,
        PIECES: HeldChunks(RangeSet([(0, 1), (2, 3)]), complete=False),
    }
    monkeypatch.setattr(translate, "HELD_RANGES_MAX", 2)
    with pytest.raises(LimitReached, match="at most 2 ranges"):
        translate.holdings_from_pb(said)
    monkeypatch.setattr(translate, "HELD_FILES_MAX", 1)
    assert [message.file_id for message in translate.holdings_to_pb({PIECES: pieces, WHOLE: whole})] == [WHOLE]
    monkeypatch.setattr(translate, "HELD_RANGES_MAX", 3)
    with pytest.raises(LimitReached, match="at most 1 files"):
        translate.holdings_from_pb(said)


def test_report_without_file_id_is_refused() -> None:
    with pytest.raises(BadArgument, match="no id of 32 bytes"):
        translate.holdings_from_pb([pb.Holding(file_id=b"short", complete=True)])


@pytest.mark.parametrize(
    ("peer", "text"),
    [("ipv4:10.0.0.1:4711", "10.0.0.1:4711"), ("ipv6:%5B::1%5D:50", "[::1]:50"), ("unix:/a", "/a"), ("", "")],
)
def test_peer_address_is_readable(peer: str, text: str) -> None:
    assert translate.peer_text(peer) == text
