"""The lifecycle of a file: seeding, seeded, exchanging, complete, gone (R1, R2, R10)."""

from __future__ import annotations

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import (
    EndCause,
    FileCompleted,
    FileResumed,
    FileSeeded,
    FileStalled,
    SaveFile,
    StartExchange,
)
from pspd.core.model.file_record import Phase
from pspd.core.model.manifest import CHUNK_BYTES
from pspd.core.server.assignment import Assignment
from pspd.core.server.demand import Demand
from pspd.core.server.files import Files
from pspd.core.server.forwarder import Forwarder
from pspd.core.server.pending import Pending
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet


class Lifecycle:
    """Takes files to the phase that their holdings allow. The machine's ``poll`` alone calls :meth:`review`.

    Args:
        files: the files.
        sessions: who is connected.
        assignment: who takes a file.
        forwarder: makes the server forget a file.
        demand: the requests.
        pending: what is being fetched.
        cache: the bytes.
        work: takes the effects and the marks.
    """

    def __init__(
        self,
        files: Files,
        sessions: Sessions,
        assignment: Assignment,
        forwarder: Forwarder,
        demand: Demand,
        pending: Pending,
        cache: Cache,
        work: WorkSet,
    ) -> None:
        self._files = files
        self._sessions = sessions
        self._assignment = assignment
        self._forwarder = forwarder
        self._demand = demand
        self._pending = pending
        self._cache = cache
        self._work = work

    def review(self, file: SharedFile) -> None:
        """Take a file one step on its way, if it may, and tell what changed."""
        to_tell = self._work.takers_to_tell(file.file_id)
        if to_tell is not None:
            self._assignment.review(file, to_tell)
        if file.phase is Phase.REMOVED and not self._forwarder.forget(file):
            self.delete(file)
        if not file.is_divided:
            return
        if file.phase is Phase.SEEDING and file.shares.are_held and not self._forwarder.forget(file):
            self._seeded(file)  # and is marked anew: what follows may have to wait for the source's end
            return
        if file.phase is Phase.SEEDED and not file.held_back:
            self._exchange(file)
        self._review_coverage(file)
        self._review_completion(file)

    def delete(self, file: SharedFile) -> None:
        """Delete a file, and all requests for it: they belong to one division."""
        self._files.delete(file.file_id)
        self._demand.forget(file.file_id)
        self._pending.forget(file.file_id)

    def _seeded(self, file: SharedFile) -> None:
        """Note the seeded moment (R2): every share is held, and no byte is left here."""
        cached_bytes = self._cache.chunks_of(file.file_id) * CHUNK_BYTES
        file.seeded(cached_bytes, self._work.now)
        self._work.emit(SaveFile(file.record))
        manifest = file.manifest
        self._work.emit(
            FileSeeded(file.file_id, manifest.name, manifest.share_count, manifest.chunk_count, cached_bytes)
        )
        source = self._sessions.members.get(file.source)
        if source is not None and source.source and not file.terms.stays:
            self._work.end_session(source.session, "the file is seeded", EndCause.SOURCE_DONE)

    def _exchange(self, file: SharedFile) -> None:
        file.exchange(self._work.now)
        self._work.emit(SaveFile(file.record))
        for member in self._sessions.members.values():
            if not member.source:
                self._work.emit(StartExchange(member.session, file.file_id))

    def _review_coverage(self, file: SharedFile) -> None:
        stalled = not file.availability.is_complete and not self._assignment.awaits_holders(file)
        if stalled == file.stalled:
            return
        file.set_stalled(stalled)
        if stalled:
            missing = tuple(file.availability.missing())
            self._work.emit(FileStalled(file.file_id, file.manifest.name, missing))
        else:
            self._work.emit(FileResumed(file.file_id, file.manifest.name))

    def _review_completion(self, file: SharedFile) -> None:
        takers = self._assignment.takers_of(file)
        is_complete = (
            file.phase is Phase.EXCHANGING
            and bool(takers)
            and file.recipients.all_complete(takers)
            and not self._assignment.awaits_holders(file)
        )
        if is_complete and not file.is_complete:
            self._work.emit(FileCompleted(file.file_id, file.manifest.name, len(takers)))
        file.set_complete(is_complete, self._work.now)
        for name in file.availability.sources if is_complete else ():
            session = self._sessions.members[name].session
            self._work.end_session(session, "every client has the file", EndCause.SOURCE_DONE)
