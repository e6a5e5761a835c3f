"""Executes the machine's effects that move no data: instructions to members, the ledger, the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from pspd.core.effects import server as effects
from pspd.core.effects.shared import InputDropped
from pspd.core.model.manifest import FileId
from pspd.core.server.machine import ServerMachine
from pspd.core.wire.header import DropReason
from pspd.daemon.server.events import event_text
from pspd.daemon.server.ledger import Ledger
from pspd.daemon.server.queues import MemberQueues

CORRUPT_SENDERS_MAX = 1000
"""Senders of wrong bytes that are remembered, so that each is logged once."""

log = logging.getLogger(__name__)


class ControlEffects:
    """Executes control effects.

    Args:
        machine: the protocol, for names.
        queues: the instructions to members.
    """

    def __init__(self, machine: ServerMachine, queues: MemberQueues) -> None:
        self._machine = machine
        self._queues = queues
        self._ledger: Ledger | None = None
        self._corrupt_senders: dict[str, None] = {}
        self._changed = asyncio.Event()

    def use_ledger(self, ledger: Ledger) -> None:
        """Write all further changes down in `ledger`."""
        self._ledger = ledger

    def close_ledger(self) -> None:
        """Write nothing more down, so that a restarted server waits for the clients that are connected now."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    async def changed(self, seconds_max: float) -> None:
        """Wait until a client or a file changes its state, or for `seconds_max`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._changed.wait()

    def execute(self, effect: effects.ControlEffect) -> None:
        """Execute one effect."""
        match effect:
            case (
                effects.Assign(session)
                | effects.StartExchange(session)
                | effects.RemoveFile(session)
                | effects.EndSession(session)
            ):
                self._queues.put(session, effect)
            case effects.VerifyFile(session, file_id):
                self._log_reverification(session, file_id)
                self._queues.put(session, effect)
            case effects.MemberFailed(name, error):
                log.error("%s: its session ends, as serving it raised an error", name, exc_info=error)
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
        match event:
            case effects.FileRemoved(file_id):
                ledger.remove_file(file_id)
            case effects.ClientJoined(name):
                member = self._machine.members.get(name)
                if member is not None and not member.source:
                    ledger.client_joined(name)
            case effects.ClientLost(name):
                ledger.client_left(name)

    def _log_reverification(self, session: int, file_id: FileId) -> None:
        members, files = self._machine.members.values(), self._machine.catalogue.files
        name = next((member.name for member in members if member.session == session), "a member that has left")
        file = files[file_id].manifest.name if file_id in files else file_id.hex()[:12]
        log.warning("%s: %s sent wrong bytes of it: not asked again until it has verified the file", file, name)

    def _log_corrupt_sender(self, name: str) -> None:
        """Log a sender of wrong bytes, once, as it may repeat that."""
        if name not in self._corrupt_senders:
            log.warning("%s sent wrong bytes: dropped", name)
            self._corrupt_senders[name] = None
            if len(self._corrupt_senders) > CORRUPT_SENDERS_MAX:
                del self._corrupt_senders[next(iter(self._corrupt_senders))]
