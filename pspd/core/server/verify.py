"""Digests of what the cache holds, and who is to blame for what is wrong (R9)."""

from __future__ import annotations

from collections.abc import Iterable

from pspd.core.cache.cache import Cache
from pspd.core.effects.server import VerifyFile
from pspd.core.model.manifest import Digest, FileId
from pspd.core.model.ranges import Range
from pspd.core.server.member import Member
from pspd.core.server.sessions import Sessions
from pspd.core.server.shared_file import SharedFile
from pspd.core.server.work_set import WorkSet


class Verifier:
    """Verifies units in the cache, and asks those who sent wrong ones to verify what they hold.

    Args:
        cache: the bytes.
        digest: the digest of the manifests.
        sessions: who is connected.
        work: takes the effects.
        parts_max: how many chunks without the rest of their unit are remembered with their senders.
    """

    def __init__(self, cache: Cache, digest: Digest, sessions: Sessions, work: WorkSet, parts_max: int) -> None:
        self._cache = cache
        self._digest = digest
        self._sessions = sessions
        self._work = work
        self._parts_max = parts_max
        self._part_senders: dict[tuple[FileId, int], str] = {}

    def is_good(self, file: SharedFile, units: Range) -> bool:
        """Return whether every unit of a run that is in the cache has its digest.

        Args:
            file: the file.
            units: the run of units.
        """
        views = self._cache.views(file.file_id, *units, file.manifest.byte_span(*units)[1])
        return not file.manifest.wrong_units(*units, views, self._digest)

    def note_parts(self, member: Member, file: SharedFile, span: Range) -> None:
        """Remember who sent parts of units: if a unit turns out to be wrong, that member may be to blame.

        Args:
            member: the sender.
            file: the file.
            span: what it sent.
        """
        whole = file.manifest.whole_units(span.start, span.stop)
        for chunk in (*range(span.start, whole.start), *range(whole.stop, span.stop)):
            self._part_senders[file.file_id, chunk] = member.name
        while len(self._part_senders) > self._parts_max:
            del self._part_senders[next(iter(self._part_senders))]

    def blame(self, member: Member | None, file: SharedFile, span: Range) -> None:
        """Ask the sender of wrong bytes to verify the file; it holds nothing of that range until it has.

        Args:
            member: the sender; None if it is gone.
            file: the file.
            span: what was wrong.
        """
        if member is not None and file.availability.retract(member.name, [span]):
            self._work.emit(VerifyFile(member.session, file.file_id))

    def distrust(self, file: SharedFile, ranges: Iterable[Range]) -> None:
        """Drop chunks from the cache that a client found wrong, unless they are good after all.

        A contribution that is less than a unit cannot be verified when it comes; the whole unit in the cache can.

        Args:
            file: the file.
            ranges: what the client found wrong.
        """
        for span in ranges:
            for unit, _ in file.manifest.units(*span):
                is_whole = self._cache.cached(file.file_id, *unit) == [unit]
                if is_whole and self.is_good(file, unit):
                    continue
                self._cache.drop(file.file_id, *unit)
                if is_whole:
                    file.traffic.count_corrupt(file.manifest.byte_span(*unit)[1])
                    senders = (self._part_senders.get((file.file_id, chunk), "") for chunk in range(*unit))
                    for sender in dict.fromkeys(senders):
                        self.blame(self._sessions.members.get(sender), file, unit)
