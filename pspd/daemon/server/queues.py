"""The instructions that wait for each member to read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pspd.core.effects.server import EndSession
from pspd.errors import WrongState
from pspd.rpc.translate import MemberEvent

EVENTS_MAX = 100_000
"""Unread events of one member: ten for each file that a network can have."""


class MemberQueues:
    """One queue of events for each session, read by at most one stream.

    Args:
        overflowed: called with a session that has `EVENTS_MAX` unread events.
    """

    def __init__(self, overflowed: Callable[[int], None]) -> None:
        self._overflowed = overflowed
        self._queues: dict[int, asyncio.Queue[MemberEvent]] = {}
        self._claimed: set[int] = set()

    def open(self, session: int) -> None:
        """Open the queue of a new session."""
        self._queues[session] = asyncio.Queue()

    def put(self, session: int, event: MemberEvent) -> None:
        """Add an event; a session without a queue has ended.

        Args:
            session: the session.
            event: the event; None asks the member to stop.
        """
        if (queue := self._queues.get(session)) is None:
            return
        queue.put_nowait(event)
        if isinstance(event, EndSession):
            del self._queues[session]
        elif queue.qsize() == EVENTS_MAX:  # once the present effects are executed, of which this is one
            asyncio.get_running_loop().call_soon(self._overflowed, session)

    def claim(self, session: int, name: str) -> asyncio.Queue[MemberEvent]:
        """Return the queue of a session, for the one stream that reads it; `close` ends the claim.

        Args:
            session: the session.
            name: its member, for messages.

        Raises:
            WrongState: another stream reads it.
        """
        if session in self._claimed:
            raise WrongState(f"{name!r} attends already: a session has one stream of events")
        self._claimed.add(session)
        return self._queues[session]

    def close(self, session: int) -> None:
        """Close the queue of a session whose stream has ended."""
        self._claimed.discard(session)
        self._queues.pop(session, None)
