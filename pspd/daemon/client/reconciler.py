"""A member's files: each is taken or declined, finished, verified anew, and looked after; over all its sessions."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pspd.core.client.download import Download, Stage
from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range
from pspd.core.model.storage import Held, Storage
from pspd.daemon.client.boundary import Boundary
from pspd.daemon.client.reception import ReceptionLog
from pspd.daemon.member.reports import Reports
from pspd.errors import ContradictoryDigests, IntegrityError, PspError, StorageError
from pspd.net.client import ClientPlane
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.rpc.translate import Declined
from pspd.store.files.disk import ExternalChanges
from pspd.text.plain import plain_text

REFUSED_SECONDS_MIN = 5.0
REFUSED_SECONDS_MAX = 300.0
"""After so long a client tries again to take a file that it could not take, as somebody may have made room: later and
later, for to look at a large file that is in the way takes time."""

RECEPTION_SECONDS = 2.0
"""How often a client looks how far its files are, to log it."""

LOOK_SECONDS = 5.0
"""How often a client looks whether its finished files are still there, and still what they were. Some 10 us each."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Care:
    """What is to be done for finished files beyond what the protocol asks of a store.

    Attributes:
        unpacking_of: gives what is to be done, in a thread, before a verified file is finished; None for nothing.
        on_finished: told of each file that has become visible.
        touched: tells with which finished files somebody has meddled.
    """

    unpacking_of: Callable[[FileId], Callable[[], None] | None] = lambda _: None
    on_finished: Callable[[FileId], None] = lambda _: None
    touched: Callable[[], ExternalChanges] = lambda: ExternalChanges({}, [])


NO_CARE = Care()


class _Refused:
    """A file that is not taken: why, whether its exchange has started, and when it is tried again.

    What somebody has removed is not brought back under their hands: it is tried again when it is there again. A
    manifest that contradicts itself is never tried again; the same file with other digests is.
    """

    __slots__ = ("delay", "division", "is_final", "manifest", "reason", "removed", "started", "try_at")

    def __init__(
        self,
        manifest: Manifest,
        division: int,
        reason: str,
        started: bool,
        removed: Path | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        self.is_final = is_final
        self.manifest = manifest
        self.division = division
        self.reason = reason
        self.started = started
        self.removed = removed
        self.delay = REFUSED_SECONDS_MIN
        self.try_at = asyncio.get_running_loop().time() + self.delay

    @property
    def is_gone(self) -> bool:
        """Whether somebody has removed it, and not put it back."""
        return self.removed is not None and not os.path.lexists(self.removed)

    def refuses(self, manifest: Manifest) -> bool:
        """Whether the file is not even tried with this manifest."""
        return self.is_gone or (self.is_final and self.manifest == manifest)

    def is_due(self, now: float) -> bool:
        """Whether to try again now; if so, the next time is later."""
        if self.try_at > now or self.refuses(self.manifest):
            return False
        self.wait_longer_than(self.delay)
        return True

    def wait_longer_than(self, delay: float) -> None:
        """Puts the next try off, as it was in vain after this delay; 0 if there was none."""
        self.delay = max(self.delay, min(2 * delay, REFUSED_SECONDS_MAX))
        self.try_at = asyncio.get_running_loop().time() + self.delay


class Keeper:
    """Keeps a member's files; what is to be said of them it has said by ``reports``.

    Args:
        name: the member's name.
        machine_seed: for what its machine draws.
        storage: its files.
        care: what is done for them besides.
        failed: told when the store no longer does its work; the member cannot go on.

    Attributes:
        suspicion: set while there are files to be verified: the session is to end for it.
    """

    def __init__(
        self,
        name: str,
        machine_seed: int,
        storage: Storage,
        reports: Reports,
        care: Care,
        failed: Callable[[PspError], None],
        faults: Faults | None,
    ) -> None:
        self.machine = ClientMachine(machine_seed)
        self.plane = ClientPlane(self.machine, storage, self._on_effect, self.suspect, self._stop_taking, faults)
        self.suspicion = asyncio.Event()
        self._boundary = Boundary(name, storage.require_usable, failed)
        self._name = name
        self._storage = storage
        self._reports = reports
        self._care = care
        self._reception = ReceptionLog(name)
        self._refused: dict[FileId, _Refused] = {}
        self._taken_after: dict[FileId, float] = {}  # what was refused before: after which delay
        self._suspects: dict[FileId, None] = {}
        self._missed: set[FileId] = set()  # at the last look
        self._unpacking: dict[FileId, asyncio.Task[None]] = {}
        self._dropped: set[FileId] = set()  # while they were unpacked
        self._storage_is_free = asyncio.Lock()  # of the thread that verifies

    def known(self) -> dict[FileId, Held]:
        """What is held, by file."""
        return self._storage.known()

    def begin_session(self) -> None:
        """A new session tells of every file, and began with all that is held."""
        kept = {file_id: refused for file_id, refused in self._refused.items() if refused.removed or refused.is_final}
        self._refused = kept
        self._reports.clear()

    def close(self) -> None:
        """Closes sockets and files."""
        self.plane.close()
        self._storage.close()

    # -- what the server tells

    def take(self, manifest: Manifest, shares: tuple[Range, ...], started: bool, division: int) -> None:
        """A file was assigned: it is begun, or declined with a reason."""
        file_id = manifest.file_id
        refused = self._refused.pop(file_id, None)
        self._reports.forget(file_id)
        self._dropped.discard(file_id)
        if refused is not None and refused.refuses(manifest):
            again = _Refused(manifest, division, refused.reason, started, refused.removed, is_final=refused.is_final)
            self._refuse(again)
            return
        try:
            self.plane.assign(manifest, shares, started, division)
        except Exception as error:
            reason = self._boundary.contain("take", manifest.name, error)
            self.machine.file_dropped(file_id)
            self._refuse(_Refused(manifest, division, reason, started))
            return
        if (download := self.machine.downloads.get(file_id)) is not None:
            self._reception.look([download])

    def _refuse(self, refused: _Refused, *, still_holds: bool = False) -> None:
        self._refused[refused.manifest.file_id] = refused
        self._reports.add(Declined(refused.manifest.file_id, refused.reason, refused.division, still_holds))

    def _refuse_again(self, refused: _Refused, error: Exception) -> None:
        """A file that was declined cannot be taken either now; it is said again only if there is another reason."""
        reason = self._boundary.contain("take", refused.manifest.name, error, refused.reason)
        self._refused[refused.manifest.file_id] = refused
        if reason != refused.reason:
            refused.reason = reason
            self._refuse(refused)

    def start_exchange(self, file_id: FileId) -> None:
        """Everything of a file may be asked for."""
        if file_id in self._refused:
            self._refused[file_id].started = True
        self.machine.exchange_started(file_id, now_ns())
        self.plane.pump()

    def drop(self, file_id: FileId) -> None:
        """A file is no longer in the network. What is unfinished of it goes, and is no loss: others drop it too."""
        title = self._title(file_id)
        self._refused.pop(file_id, None)
        self._taken_after.pop(file_id, None)
        self._forget(file_id)
        if file_id in self._unpacking:
            self._dropped.add(file_id)
        log.info("%s: %s was removed from the network%s", self._name, title, self._reception.ended(file_id))

    async def take_refused(self) -> None:
        """Tries again what could not be taken; the share of it that was declined is others' by now."""
        while True:
            await asyncio.sleep(REFUSED_SECONDS_MIN / 2)
            now = asyncio.get_running_loop().time()
            for file_id, refused in list(self._refused.items()):
                if not refused.is_due(now):
                    continue
                del self._refused[file_id]
                self._taken_after[file_id] = refused.delay
                try:
                    self.plane.assign(refused.manifest, (), refused.started, refused.division)
                except Exception as error:
                    self.machine.file_dropped(file_id)
                    self._refuse_again(refused, error)
                else:
                    if file_id not in self._refused:  # what is whole is finished at once, or cannot be
                        log.info("%s: takes %s after all", self._name, refused.manifest.name)

    # -- files that are not what they were

    def suspect(self, file_id: FileId) -> None:
        """What is stored of a file may be wrong: verify it between this session and the next."""
        self._suspects[file_id] = None
        self.suspicion.set()

    async def verify_suspects(self) -> None:
        """Verifies what is suspected: the next session then begins with the truth of what is held.

        Raises:
            StorageError: of the first that cannot be verified; it is not held until it is begun anew.
        """
        self.suspicion.clear()
        removed = self._care.touched().removed if self._suspects else {}
        failure = None
        for file_id in list(self._suspects):
            if file_id in removed:
                self._give_up(file_id, removed[file_id])
            title = self._title(file_id)
            self.machine.file_dropped(file_id)
            if file_id in self._storage.known():
                log.warning("%s: verifying %s", self._name, title)
                try:
                    async with self._storage_is_free:
                        await asyncio.to_thread(self._storage.verify, file_id)
                except Exception as error:
                    reason = self._boundary.contain("verify", title, error)
                    failure = failure or StorageError(reason)
            del self._suspects[file_id]
        if failure is not None:
            raise failure

    async def log_reception(self) -> None:
        """Logs what is received, and how far it is."""
        while True:
            self._reception.look(list(self.machine.downloads.values()))
            await asyncio.sleep(RECEPTION_SECONDS)

    async def look_after_finished(self) -> None:
        """Looks whether finished files are still what they were: others count on them."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._boundary.check_store():
                return
            removed, changed = self._care.touched()
            for file_id, path in removed.items():
                if file_id in self._missed:  # who puts another in its place may take it away first
                    self._give_up(file_id, path)
            self._missed = set(removed)
            for file_id in changed:
                self.suspect(file_id)

    def _give_up(self, file_id: FileId, path: Path) -> None:
        """What somebody has removed others are not to count on."""
        download = self.machine.downloads.get(file_id)
        if download is None:
            return
        reason = f"{path} was removed: put it back, or restart the client to have it fetched again, if others have it"
        log.warning("%s: %s", self._name, reason)
        self._forget(file_id)
        self._refuse(_Refused(download.manifest, download.division, reason, True, path))

    def _title(self, file_id: FileId) -> str:
        """What a log calls a file: its name, or the beginning of its id if that is all that is known."""
        refused = self._refused.get(file_id)
        name = self.machine.name_of(file_id) or (refused.manifest.name if refused is not None else None)
        return plain_text(name) if name is not None else f"file {file_id.hex()[:12]}"

    def _forget(self, file_id: FileId) -> None:
        title = self._title(file_id)
        self._reports.forget(file_id)
        self.machine.file_dropped(file_id)
        self._discard(file_id, title)

    def _discard(self, file_id: FileId, title: str) -> None:
        try:
            self._storage.discard(file_id)
        except Exception as error:
            self._boundary.contain("remove", title, error)

    # -- what the machine wants done

    def _on_effect(self, effect: FinishFile | ReportMilestone | DownlinkChanged | InputDropped) -> None:
        match effect:
            case FinishFile(file_id):
                self._finish(file_id)
            case ReportMilestone():
                self._reports.add(effect)
            case DownlinkChanged(True):
                log.info("%s: the server's datagrams come through again", self._name)
            case DownlinkChanged(False):
                log.warning("%s: no datagram comes from the server: is its UDP port blocked?", self._name)
            case InputDropped(reason, origin):
                log.debug("%s: dropped from %s: %s", self._name, origin, reason)

    def _finish(self, file_id: FileId) -> None:
        try:
            unpack = self._care.unpacking_of(file_id)
        except Exception as error:
            self._stop_taking(file_id, error)
            return
        if unpack is None:
            self._make_visible(file_id)
        elif file_id not in self._unpacking:
            self._unpacking[file_id] = asyncio.ensure_future(self._unpack(self.machine.downloads[file_id], unpack))

    async def _unpack(self, download: Download, unpack: Callable[[], None]) -> None:
        """Unpacks a folder beside all else, as that takes a while, and makes it visible then."""
        try:
            await asyncio.to_thread(unpack)
            failure = None
        except Exception as error:  # whatever it is: nobody is to wait for this file for ever
            failure = error
        async with self._storage_is_free:
            self._end_unpacking(download, failure)

    def _end_unpacking(self, download: Download, failure: Exception | None) -> None:
        file_id = download.file_id
        del self._unpacking[file_id]
        now = self.machine.downloads.get(file_id)
        if file_id in self._dropped:
            self._dropped.discard(file_id)
            self._discard(file_id, plain_text(download.manifest.name))
        elif now is None or now.stage is not Stage.FINISHING:
            pass  # it is verified just now, or fetched anew: what is unpacked is found when it is finished then
        elif now is not download:
            self._finish(file_id)
        elif failure is None:
            self._make_visible(file_id)
        else:
            self._stop_taking(file_id, failure, "unpack")

    def _make_visible(self, file_id: FileId) -> None:
        download = self.machine.downloads[file_id]
        try:
            self._storage.finish(file_id)
        except IntegrityError as error:
            log.warning("%s: %s", self._name, error)
            self.suspect(file_id)
            return
        except Exception as error:
            self._stop_taking(file_id, error, "finish")
            return
        self._taken_after.pop(file_id, None)
        title = plain_text(download.manifest.name)
        log.info("%s: %s is complete%s", self._name, title, self._reception.ended(file_id))
        self._care.on_finished(file_id)
        self.machine.file_finished(file_id)
        self.plane.pump()

    def _stop_taking(self, file_id: FileId, error: Exception, action: str = "store") -> None:
        """Declines a file of which no more can be stored, or that cannot be finished, and tries again later.

        What is verified of it is still sent to others, unless the error says nothing about the disk.
        """
        download = self.machine.downloads.get(file_id)
        reason = self._boundary.contain(action, self._title(file_id), error)
        self._reception.ended(file_id)
        if download is None:
            return
        started = download.stage in (Stage.EXCHANGE, Stage.FINISHING)
        is_final = isinstance(error, ContradictoryDigests)
        still_holds = isinstance(error, (OSError, PspError)) and not is_final
        if still_holds:
            self.machine.file_declined(file_id, now_ns())
        else:
            self.machine.file_dropped(file_id)
        refused = _Refused(download.manifest, download.division, reason, started, is_final=is_final)
        refused.wait_longer_than(self._taken_after.get(file_id, 0.0))
        self._refuse(refused, still_holds=still_holds)
        self.plane.pump()
