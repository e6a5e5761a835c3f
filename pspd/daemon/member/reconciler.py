"""Manages a member's files across its sessions: takes or declines, finishes, watches and verifies them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pspd.core.client.download import Download, Stage
from pspd.core.client.machine import ClientMachine
from pspd.core.effects.client import DownlinkChanged, FinishFile, ReportMilestone
from pspd.core.effects.shared import InputDropped
from pspd.core.model.manifest import FileId, Manifest
from pspd.core.model.ranges import Range
from pspd.core.model.storage import Storage
from pspd.daemon.member.declined import RETRY_SECONDS_MIN, DeclinedFile, ErrorBoundary
from pspd.daemon.member.reception import ReceptionLog
from pspd.daemon.member.reports import Reports
from pspd.errors import ContradictoryDigests, IntegrityError, PspError, StorageError
from pspd.net.client import ClientPlane
from pspd.net.driver import now_ns
from pspd.net.faults import Faults
from pspd.rpc.translate import Declined
from pspd.store.files.disk import ExternalChanges
from pspd.text.plain import plain_text

RECEPTION_SECONDS = 2.0
"""The interval at which a client looks for progress to log."""
WATCH_SECONDS = 5.0
"""The interval at which a client checks that its finished files exist and are unchanged. Each check takes some 10 us
per file."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileHooks:
    """The work of a client's disk store besides storing chunks. The defaults do nothing.

    Attributes:
        unpack_job: returns a job that a thread runs before a verified file is finished; None if no job is needed.
        on_finished: called with the id of each file that has become visible.
        external_changes: returns the finished files that a user or another program has removed or changed.
    """

    unpack_job: Callable[[FileId], Callable[[], None] | None] = lambda _: None
    on_finished: Callable[[FileId], None] = lambda _: None
    external_changes: Callable[[], ExternalChanges] = lambda: ExternalChanges({}, [])


NO_HOOKS = FileHooks()


class FileReconciler:
    """Brings a member's files to the state that the server asks for, and reports the progress.

    Args:
        name: the member's name.
        storage: the store of the member's files.
        reports: the queue of the member's reports.
        hooks: the work of the disk store besides storing chunks.
        on_store_failure: called with the error when the store as a whole has failed, to end the member.
        faults: the faults to inject into received datagrams; None for none.

    Attributes:
        machine: the client's state machine.
        plane: the member's data plane.
        reverification_needed: set from when a file must be verified again until :meth:`reverify` begins. The session
            must end before that.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        reports: Reports,
        hooks: FileHooks,
        on_store_failure: Callable[[PspError], None],
        faults: Faults | None,
    ) -> None:
        self.machine = ClientMachine(secrets.randbits(64))
        self.plane = ClientPlane(
            self.machine, storage, self._on_effect, self.require_reverification, self._decline, faults
        )
        self.reverification_needed = asyncio.Event()
        self._boundary = ErrorBoundary(name, storage.require_usable, on_store_failure)
        self._name = name
        self._storage = storage
        self._reports = reports
        self._hooks = hooks
        self._reception = ReceptionLog(name)
        self._declined: dict[FileId, DeclinedFile] = {}
        self._last_delays: dict[FileId, float] = {}  # by declined file: the delay before the latest attempt
        self._files_to_verify: dict[FileId, None] = {}
        self._missing_before: set[FileId] = set()  # files that were missing at the last check
        self._unpacking: dict[FileId, asyncio.Task[None]] = {}
        self._dropped: set[FileId] = set()  # files that were dropped while they were being unpacked
        self._storage_lock = asyncio.Lock()  # held while a thread verifies a file, and while an unpacking ends

    def begin_session(self) -> None:
        """Forget the reports and the declined files of the last session, as the server assigns every file again.

        Files that a user removed and files with contradictory digests stay declined.
        """
        self._declined = {key: file for key, file in self._declined.items() if file.removed_path or file.is_final}
        self._reports.clear()

    def close(self) -> None:
        """Close sockets and files."""
        self.plane.close()
        self._storage.close()

    # -- events from the server

    def take(self, manifest: Manifest, shares: tuple[Range, ...], exchange_started: bool, division: int) -> None:
        """Begin to receive an assigned file, or decline it with a reason.

        Args:
            manifest: the file's manifest.
            shares: the shares of this member.
            exchange_started: whether the file's exchange has started.
            division: the number of the division that the shares belong to.
        """
        file_id = manifest.file_id
        declined = self._declined.pop(file_id, None)
        self._reports.forget(file_id)
        self._dropped.discard(file_id)
        if declined is not None and declined.rules_out(manifest):
            self._note_declined(
                replace(declined, manifest=manifest, division=division, exchange_started=exchange_started)
            )
            return
        try:
            self.plane.assign(manifest, shares, exchange_started, division)
        except Exception as error:
            reason = self._boundary.contain("take", manifest.name, error)
            self.machine.file_dropped(file_id)
            self._note_declined(DeclinedFile(manifest, division, reason, exchange_started))
            return
        if (download := self.machine.downloads.get(file_id)) is not None:
            self._reception.update([download])

    def _note_declined(self, declined: DeclinedFile, *, still_holds: bool = False) -> None:
        """Record and report that a file is declined.

        Args:
            declined: the declined file.
            still_holds: whether the member still contributes the verified chunks of the file.
        """
        file_id = declined.manifest.file_id
        self._declined[file_id] = declined
        self._reports.add(Declined(file_id, declined.reason, declined.division, still_holds))

    def start_exchange(self, file_id: FileId) -> None:
        """Start the exchange of a file: from now on the member may request every chunk."""
        if file_id in self._declined:
            self._declined[file_id].exchange_started = True
        self.machine.exchange_started(file_id, now_ns())
        self.plane.pump()

    def drop(self, file_id: FileId) -> None:
        """Forget a file that was removed from the network, and delete its unfinished data."""
        title = self._title(file_id)
        self._declined.pop(file_id, None)
        self._last_delays.pop(file_id, None)
        self._forget(file_id)
        if file_id in self._unpacking:
            self._dropped.add(file_id)
        log.info("%s: %s was removed from the network%s", self._name, title, self._reception.end(file_id))

    async def retry_declined(self) -> None:
        """Take declined files again when an attempt is due, until cancelled. Their shares have been reassigned."""
        while True:
            await asyncio.sleep(RETRY_SECONDS_MIN / 2)
            now = asyncio.get_running_loop().time()
            for file_id, declined in list(self._declined.items()):
                if declined.is_retry_due(now):
                    del self._declined[file_id]
                    self._last_delays[file_id] = declined.delay
                    declined.back_off(declined.delay)
                    self._retry(file_id, declined)

    def _retry(self, file_id: FileId, declined: DeclinedFile) -> None:
        try:
            self.plane.assign(declined.manifest, (), declined.exchange_started, declined.division)
        except Exception as error:
            self.machine.file_dropped(file_id)
            reason = self._boundary.contain("take", declined.manifest.name, error, declined.reason)
            self._declined[file_id] = declined
            if reason != declined.reason:  # the same reason need not be reported again
                declined.reason = reason
                self._note_declined(declined)
        else:
            if file_id not in self._declined:  # `assign` may have declined it again: a complete file may fail to finish
                log.info("%s: accepts %s now", self._name, declined.manifest.name)

    # -- files that have changed

    def require_reverification(self, file_id: FileId) -> None:
        """Schedule the verification of a file between this session and the next: its stored bytes may be wrong."""
        self._files_to_verify[file_id] = None
        self.reverification_needed.set()

    async def reverify(self) -> None:
        """Verify every file that needs it, so that the next session reports only chunks that are really held.

        Decline such a file instead if a user has removed it.

        Raises:
            StorageError: a file cannot be verified, and is not held until it is assigned again. If there are several
                such files, this is the error of the first one.
        """
        self.reverification_needed.clear()
        removed = self._hooks.external_changes().removed if self._files_to_verify else {}
        failure = None
        for file_id in list(self._files_to_verify):
            if file_id in removed:
                self._decline_removed(file_id, removed[file_id])
            title = self._title(file_id)
            self.machine.file_dropped(file_id)
            if file_id in self._storage.known():
                log.warning("%s: verifying %s", self._name, title)
                try:
                    async with self._storage_lock:
                        await asyncio.to_thread(self._storage.verify, file_id)
                except Exception as error:
                    reason = self._boundary.contain("verify", title, error)
                    failure = failure or StorageError(reason)
            del self._files_to_verify[file_id]
        if failure is not None:
            raise failure

    async def log_reception(self) -> None:
        """Log the progress of each file at intervals, until cancelled."""
        while True:
            self._reception.update(list(self.machine.downloads.values()))
            await asyncio.sleep(RECEPTION_SECONDS)

    async def watch_finished(self) -> None:
        """Check at intervals that finished files exist and are unchanged, until the store fails.

        Files that are missing in two checks in a row are declined, and changed files are verified again: other clients
        rely on them.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._boundary.check_store():
                return
            removed, changed = self._hooks.external_changes()
            for file_id, path in removed.items():
                if file_id in self._missing_before:  # a program that replaces a file may remove it first
                    self._decline_removed(file_id, path)
            self._missing_before = set(removed)
            for file_id in changed:
                self.require_reverification(file_id)

    def _decline_removed(self, file_id: FileId, path: Path) -> None:
        """Decline a file that a user has removed, as the server must not rely on it.

        Args:
            file_id: the file's id.
            path: the path from which the file was removed.
        """
        download = self.machine.downloads.get(file_id)
        if download is None:
            return
        reason = f"{path} was removed: put it back, or restart the client, which then fetches it again from others"
        log.warning("%s: %s", self._name, reason)
        self._forget(file_id)
        declined = DeclinedFile(download.manifest, download.division, reason, exchange_started=True, removed_path=path)
        self._note_declined(declined)

    def _title(self, file_id: FileId) -> str:
        """Return a file's name for the log; the beginning of its id if the name is unknown."""
        declined = self._declined.get(file_id)
        name = self.machine.name_of(file_id) or (declined.manifest.name if declined is not None else None)
        return plain_text(name) if name is not None else f"file {file_id.hex()[:12]}"

    def _forget(self, file_id: FileId) -> None:
        """Forget a file and its unsent reports, and discard its stored data."""
        title = self._title(file_id)
        self._reports.forget(file_id)
        self.machine.file_dropped(file_id)
        self._discard(file_id, title)

    def _discard(self, file_id: FileId, title: str) -> None:
        try:
            self._storage.discard(file_id)
        except Exception as error:
            self._boundary.contain("remove", title, error)

    # -- effects of the machine

    def _on_effect(self, effect: FinishFile | ReportMilestone | DownlinkChanged | InputDropped) -> None:
        match effect:
            case FinishFile(file_id):
                self._finish(file_id)
            case ReportMilestone():
                self._reports.add(effect)
            case DownlinkChanged(True):
                log.info("%s: datagrams from the server arrive again", self._name)
            case DownlinkChanged(False):
                log.warning("%s: no datagram comes from the server: is its UDP port blocked?", self._name)
            case InputDropped(reason, origin):
                log.debug("%s: dropped from %s: %s", self._name, origin, reason)

    def _finish(self, file_id: FileId) -> None:
        """Start to unpack a verified folder, or make a verified file visible."""
        try:
            unpack = self._hooks.unpack_job(file_id)
        except Exception as error:
            self._decline(file_id, error)
            return
        if unpack is None:
            self._make_visible(file_id)
        elif file_id not in self._unpacking:
            self._unpacking[file_id] = asyncio.ensure_future(self._unpack(self.machine.downloads[file_id], unpack))

    async def _unpack(self, download: Download, unpack: Callable[[], None]) -> None:
        """Unpack a folder in a thread, as this may take long; then make the folder visible.

        Args:
            download: the download of the folder.
            unpack: the work of the thread.
        """
        try:
            await asyncio.to_thread(unpack)
            failure = None
        except Exception as error:  # any error: otherwise the file would stay unfinished
            failure = error
        async with self._storage_lock:
            self._end_unpacking(download, failure)

    def _end_unpacking(self, download: Download, failure: Exception | None) -> None:
        """Make an unpacked folder visible, or decline it; discard it if it was dropped meanwhile."""
        file_id = download.file_id
        del self._unpacking[file_id]
        current = self.machine.downloads.get(file_id)
        if file_id in self._dropped:
            self._dropped.discard(file_id)
            self._discard(file_id, plain_text(download.manifest.name))
        elif current is None or current.stage is not Stage.FINISHING:
            pass  # the file is verified or received again; its unpacked folder is used when it is finished
        elif current is not download:
            self._finish(file_id)
        elif failure is None:
            self._make_visible(file_id)
        else:
            self._decline(file_id, failure, "unpack")

    def _make_visible(self, file_id: FileId) -> None:
        download = self.machine.downloads[file_id]
        try:
            self._storage.finish(file_id)
        except IntegrityError as error:
            log.warning("%s: %s", self._name, error)
            self.require_reverification(file_id)
            return
        except Exception as error:
            self._decline(file_id, error, "finish")
            return
        self._last_delays.pop(file_id, None)
        title = plain_text(download.manifest.name)
        log.info("%s: %s is complete%s", self._name, title, self._reception.end(file_id))
        self._hooks.on_finished(file_id)
        self.machine.file_finished(file_id)
        self.plane.pump()

    def _decline(self, file_id: FileId, error: Exception, action: str = "store") -> None:
        """Decline a file that cannot be stored or finished, and schedule the next attempt.

        After an error of the disk or the store, the member still contributes the verified chunks of the file. After an
        unexpected error or contradictory digests, it does not. Contradictory digests also rule out further attempts.

        Args:
            file_id: the file's id.
            error: the error.
            action: the operation that failed, such as "unpack", for the log.
        """
        download = self.machine.downloads.get(file_id)
        reason = self._boundary.contain(action, self._title(file_id), error)
        self._reception.end(file_id)
        if download is None:
            return
        exchange_started = download.stage in (Stage.EXCHANGE, Stage.FINISHING)
        is_final = isinstance(error, ContradictoryDigests)
        still_holds = isinstance(error, (OSError, PspError)) and not is_final
        if still_holds:
            self.machine.file_declined(file_id, now_ns())
        else:
            self.machine.file_dropped(file_id)
        declined = DeclinedFile(download.manifest, download.division, reason, exchange_started, is_final=is_final)
        declined.back_off(self._last_delays.get(file_id, 0.0))
        self._note_declined(declined, still_holds=still_holds)
        self.plane.pump()
