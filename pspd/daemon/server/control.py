"""Executes the effects that are not for the sockets: queues events for members, writes the ledger and the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pspd.core.effects import server as effects
from pspd.core.effects.shared import InputDropped
from pspd.core.model.manifest import FileId
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.header import DropReason
from pspd.daemon.server.ledger import Ledger
from pspd.errors import WrongState
from pspd.rpc.translate import MemberEvent
from pspd.text.sizes import size_text

EVENTS_MAX = 100_000
"""The most unread events of one member: ten for each file that a network can have."""
CORRUPT_SENDERS_MAX = 1000
"""The most names of senders of wrong bytes to remember, so that each sender is logged once."""

log = logging.getLogger(__name__)


class MemberQueues:
    """The queues of events for members: one for each session, read by at most one stream.

    Args:
        on_overflow: called with the number of a session that has `EVENTS_MAX` unread events.
    """

    def __init__(self, on_overflow: Callable[[int], None]) -> None:
        self._on_overflow = on_overflow
        self._queues: dict[int, asyncio.Queue[MemberEvent]] = {}
        self._claimed: set[int] = set()

    def open(self, session: int) -> None:
        """Open the queue of a new session."""
        self._queues[session] = asyncio.Queue()

    def put(self, session: int, event: MemberEvent) -> None:
        """Add an event, unless the session has ended. ``EndSession`` is the last event of a session.

        Args:
            session: the session number of the member.
            event: the event.
        """
        if (queue := self._queues.get(session)) is None:
            return
        queue.put_nowait(event)
        if isinstance(event, effects.EndSession):
            del self._queues[session]
        elif queue.qsize() == EVENTS_MAX:  # called later: the current effects must be executed first
            asyncio.get_running_loop().call_soon(self._on_overflow, session)

    def claim(self, session: int, name: str) -> asyncio.Queue[MemberEvent]:
        """Return the queue of a session for its only reader; `close` releases the queue.

        Args:
            session: the session number of the member.
            name: the member's name, for error messages.

        Raises:
            WrongState: another stream reads the queue.
        """
        if session in self._claimed:
            raise WrongState(f"the session of {name!r} has a stream of events already")
        self._claimed.add(session)
        return self._queues[session]

    def close(self, session: int) -> None:
        """Close the queue of a session whose stream has ended."""
        self._claimed.discard(session)
        self._queues.pop(session, None)


class ControlExecutor:
    """Executes control effects, and wakes those who wait for a change.

    Args:
        machine: the server's state machine, which knows the names of members and files.
        queues: the queues of events for members.
    """

    def __init__(self, machine: ServerMachine, queues: MemberQueues) -> None:
        self._machine = machine
        self._queues = queues
        self._ledger: Ledger | None = None
        self._corrupt_senders: dict[str, None] = {}
        self._changed = asyncio.Event()

    def use_ledger(self, ledger: Ledger) -> None:
        """Record all further changes in `ledger`."""
        self._ledger = ledger

    def close_ledger(self) -> None:
        """Close the ledger while clients are still connected, so that a restarted server waits for them."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    async def next_change(self, seconds_max: float) -> None:
        """Wait for an event of a member or a file, for at most `seconds_max`; mere progress does not end the wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._changed.wait()

    def execute(self, effect: effects.ControlEffect) -> None:
        """Execute one effect."""
        match effect:
            case effects.Assign() | effects.StartExchange() | effects.RemoveFile() | effects.EndSession():
                self._queues.put(effect.session, effect)
            case effects.VerifyFile(session, file_id):
                self._log_reverification(session, file_id)
                self._queues.put(session, effect)
            case effects.MemberFailed(name, error):
                log.error("%s: its session ends: an error occurred while the server served it", name, exc_info=error)
            case InputDropped(DropReason.CORRUPT, origin):
                self._log_corrupt_sender(origin)
            case InputDropped(reason, origin):
                log.debug("dropped from %s: %s", origin, reason)
            case effects.SaveFile(record):
                if self._ledger is not None:
                    self._ledger.save_file(record)
            case effects.DuplicateRefused():
                log.warning("%s", event_text(effect))
            case _:
                if self._ledger is not None:
                    self._record(effect, self._ledger)
                log.info("%s", event_text(effect))
                self._changed.set()
                self._changed = asyncio.Event()

    def _record(self, event: effects.ServerEvent, ledger: Ledger) -> None:
        """Record a removed file, and the names of clients that join or leave."""
        match event:
            case effects.FileRemoved(file_id):
                ledger.remove_file(file_id)
            case effects.MemberJoined(name):
                member = self._machine.members.get(name)
                if member is not None and not member.is_source:
                    ledger.add_client(name)
            case effects.MemberLeft(name):
                ledger.remove_client(name)

    def _log_reverification(self, session: int, file_id: FileId) -> None:
        members, files = self._machine.members.values(), self._machine.catalogue.files
        name = next((member.name for member in members if member.session == session), "a member that has left")
        file = files[file_id].manifest.name if file_id in files else file_id.hex()[:12]
        log.warning("%s: %s sent wrong bytes: it is not asked again until it has verified the file", file, name)

    def _log_corrupt_sender(self, name: str) -> None:
        """Log a sender of wrong bytes only once, as more wrong bytes may follow."""
        if name not in self._corrupt_senders:
            log.warning("%s sent wrong bytes, which were dropped", name)
            self._corrupt_senders[name] = None
            if len(self._corrupt_senders) > CORRUPT_SENDERS_MAX:
                del self._corrupt_senders[next(iter(self._corrupt_senders))]


def event_text(event: effects.ServerEvent) -> str:
    """Return the log line for an event."""
    match event:
        case effects.MemberJoined(name):
            return f"{name} joined"
        case effects.UplinkConfirmed(name):
            return f"{name}: its first datagram arrived"
        case effects.MemberLeft(name, reason):
            return f"{name} is gone: {reason}"
        case effects.DuplicateRefused(name, refused, present):
            return (
                f"{name}: refused a second client with its identity at {refused or 'an unknown address'}: the one at"
                f" {present or 'an unknown address'} is connected. If its folder was copied, give one a new --name"
            )
        case effects.ReachabilityChanged(name, reachable):
            if reachable:
                return f"{name} is reachable again"
            return f"{name} is unreachable: datagrams do not pass both ways, or its connection for data is down"
        case _:
            return f"{event.name}: {_file_event_text(event)}"


def _file_event_text(event: effects.FileEvent) -> str:
    match event:
        case effects.FileDivided(shares=shares, replica_count=replica_count):
            each = f", each for {replica_count} clients" if replica_count > 1 else ""
            return f"divided into {len(shares) // replica_count} shares{each}"
        case effects.FileSeeded(share_count=share_count, chunk_count=chunk_count, cached_bytes=cached_bytes):
            return (
                f"seeded: clients hold {share_count} disjoint shares, {chunk_count} chunks together;"
                f" {size_text(cached_bytes)} of the file remain in the server's cache"
            )
        case effects.FileDeclined(client=client, reason=reason):
            return f"{client} declined it: {reason}"
        case effects.ShareReassigned(client=client):
            return f"{client} made no progress on its share; reassigned"
        case effects.FileStalled(missing=missing):
            ranges = ", ".join(f"{span} (last holder: {holder or 'unknown'})" for span, holder in missing[:8])
            return f"stalled: no reachable client holds {ranges}"
        case effects.FileResumed():
            return "continues: every chunk has a holder again"
        case effects.FileRemoved():
            return "removed"
        case effects.FileCompleted(client_count=client_count):
            return f"complete: {client_count} clients have it"
