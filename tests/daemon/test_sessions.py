"""Session numbers of a running server: nobody can compute one from others."""

from __future__ import annotations

import asyncio
from random import Random

from pspd.core.parameters import FAST
from pspd.daemon.network import NetworkDaemon
from tests.support.loops import on_loop

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
    """The word of a Mersenne Twister's state that an output was made of."""
    found = undo_left(undo_right(output, 18), 15, 0xEFC60000)
    return undo_right(undo_left(found, 7, 0x9D2C5680), 11)


def next_session(known: list[int]) -> int:
    """The number that follows, if a Mersenne Twister gave the known ones."""
    words = [word for session in known for word in (session & 0xFFFFFFFF, session >> 32)]
    twister = Random()
    twister.setstate((3, (*map(state_word, words), WORDS), None))
    return twister.getrandbits(64)


def test_next_session_predicts_a_mersenne_twister() -> None:
    twister = Random(5)
    assert next_session([twister.getrandbits(64) for _ in range(WORDS // 2)]) == twister.getrandbits(64)


@on_loop
async def test_sessions_cannot_be_computed_from_others() -> None:
    network = NetworkDaemon(FAST, 64, "127.0.0.1", 0, asyncio.Event())
    try:
        known = [
            network.join(f"c{index}", bytes(16), source=False, delivery_port=0, held={})[0].session
            for index in range(WORDS // 2)
        ]
        following, *_ = network.join("next", bytes(16), source=False, delivery_port=0, held={})
        assert following.session != next_session(known)
        assert len(set(known)) == len(known)
    finally:
        await network.close()
