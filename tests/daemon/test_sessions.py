"""Session ids cannot be computed from others; a forged request number costs one rejoin."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pspd.core.effects.client import ReportMilestone
from pspd.core.effects.shared import Milestone
from pspd.core.model.parameters import FAST, SECOND_NS
from pspd.core.model.tuning import SERVER_TUNING
from pspd.core.wire.datagrams import REQUEST_NUMBER_MAX, Request, encode_datagram
from pspd.daemon.server.network import NetworkDaemon
from pspd.errors import SessionUnknown
from tests.daemon.members import in_process
from tests.support.files import random_file
from tests.support.loops import on_loop, until

WORDS = 624
"""The 32-bit outputs that determine the whole state of a Mersenne Twister."""


def undo_right(value: int, shift: int) -> int:
    found = value
    for _ in range(32 // shift + 1):
        found = value ^ (found >> shift)
    return found


def undo_left(value: int, shift: int, mask: int) -> int:
    found = value
    for _ in range(32 // shift + 1):
        found = value ^ ((found << shift) & mask)
    return found & 0xFFFFFFFF


def state_word(output: int) -> int:
    """Return the word of a Mersenne Twister's state from which an output was computed."""
    found = undo_left(undo_right(output, 18), 15, 0xEFC60000)
    return undo_right(undo_left(found, 7, 0x9D2C5680), 11)


def next_session(known: list[int]) -> int:
    """Return the number that follows if a Mersenne Twister drew the known ones."""
    words = [word for session in known for word in (session & 0xFFFFFFFF, session >> 32)]
    twister = Random()
    twister.setstate((3, (*map(state_word, words), WORDS), None))
    return twister.getrandbits(64)


def test_next_session_predicts_a_mersenne_twister() -> None:
    twister = Random(5)
    assert next_session([twister.getrandbits(64) for _ in range(WORDS // 2)]) == twister.getrandbits(64)


@on_loop
async def test_sessions_cannot_be_computed_from_others() -> None:
    network = NetworkDaemon(FAST, 64, ["127.0.0.1"], 0, asyncio.Event())
    try:
        known = [
            network.join(f"c{index}", bytes(16), source=False, delivery_port=0, held={}, peer="")
            for index in range(WORDS // 2)
        ]
        following = network.join("next", bytes(16), source=False, delivery_port=0, held={}, peer="")
        assert following != next_session(known)
        assert len(set(known)) == len(known)
    finally:
        await network.close()


@on_loop
async def test_client_rejoins_after_a_forged_request_number(tmp_path: Path) -> None:
    source = random_file(tmp_path / "file.bin", 300_000)
    async with in_process(FAST) as network:
        (client, _) = await network.join("a", "b")
        await network.seed(source, client_count=2, hold_back=True)
        first = client.daemon.session_number
        forged = Request(first, network.file("file.bin").file_id, REQUEST_NUMBER_MAX, 0, 1, ())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(encode_datagram(forged), ("127.0.0.1", network.server.data_port))
        await until("the client has another session", lambda: client.daemon.session_number not in (0, first))
        network.server.release("file.bin")
        await network.copies(source, "a", "b")
        assert network.server.status("", with_file_clients=False).server.dropped_counts["bad_number"] == 1


@on_loop
async def test_refused_rejoin_is_logged_once_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pspd.daemon.member.member")

    def count(text: str) -> int:
        return sum(text in record.message for record in caplog.records)

    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        network.server.leave(client.daemon.session_number)
        other = network.server.join("a", bytes(16), source=False, delivery_port=0, held={}, peer="")
        await until("the client was refused several times", lambda: count("cannot join") >= 3)
        assert count("the server refused it; trying again: a client named 'a' is connected already") == 1
        network.server.leave(other)
        await until("the client is back", lambda: count("joined again") == 1)


@on_loop
async def test_impossible_number_in_a_report_ends_its_call(tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        (client,) = await network.join("a")
        await network.seed(random_file(tmp_path / "file.bin", 5000), client_count=1, hold_back=True)
        file_id = network.file("file.bin").file_id
        report = ReportMilestone(file_id, Milestone.SHARE_HELD, 5, request_number=REQUEST_NUMBER_MAX)
        with pytest.raises(SessionUnknown, match="request number"):
            network.server.report(client.daemon.session_number, [report, report])
        assert "unknown_file" not in network.server.status("", with_file_clients=False).server.dropped_counts


@on_loop
async def test_announced_lease_grows_with_the_members() -> None:
    tuning = replace(SERVER_TUNING, lease_ns=SECOND_NS, lease_ns_per_member=10 * SECOND_NS)
    async with in_process(FAST, tuning) as network:
        for count in (1, 2, 3):
            await network.join(f"client-{count}")
            assert network.server.lease_ms == count * 10_000
