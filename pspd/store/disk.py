"""A client's folder on disk.

Finished files are in the folder under their own names. Unfinished work is in its hidden folder, for each
file: ``<id>.manifest``, ``<id>.part`` (the bytes, sparse), ``<id>.held`` (the journal of verified
ranges), and ``<id>.done`` once it is finished. Besides: ``lock``, ``instance``, ``boot``.

Of a folder it is its archive that is written, verified and, as ``<id>.tar``, sent to others. What is unpacked of it
(``<id>.unpacked`` until it gets its name) is the user's from then on.

The order of things is what makes a crash at any moment harmless. What is verified is saved, and only then
entered in the journal; what cannot be verified by itself is saved, and verified from there once its unit is
whole. A finished file gets its name, then its mark, and only then does the part lose its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing
from enum import Enum, auto
from itertools import count
from pathlib import Path

from pspd.core.manifest import STORE_FOLDER, Digest, FileId, Manifest, ReadAt
from pspd.core.ranges import Range, RangeSet
from pspd.core.storage import FileSlice, Held, Written
from pspd.errors import IntegrityError, StorageError
from pspd.store.archive import FolderArchive
from pspd.store.folder import (
    boot_id,
    flush_file,
    instance_of,
    is_same_file,
    lock_folder,
    plain_state,
    publish_file,
    remove_file,
)
from pspd.store.folders import Folders
from pspd.store.intake import Intake
from pspd.store.journal import Journal
from pspd.store.messages import failed, name_conflict, not_begun, not_verified, over_quota
from pspd.store.open_files import FileBytes, OpenFiles
from pspd.store.records import ON_DISK, UNVERIFIED, Mark, Records
from pspd.store.unpacking import flush_tree

_LOG = logging.getLogger(__name__)

_MARKING_NS = 2_000_000_000
"""So long after its mark was written a finished file may still have been touched by us."""
_COPIED_CHUNKS = 1024

_PART_FLAGS = os.O_RDWR | os.O_CREAT
# Not through a symbolic link: it would lead out of the folder.
_VISIBLE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW


class _Place(Enum):
    """Where a file's bytes are."""

    PART = auto()  # in the hidden folder, to be written to
    VISIBLE = auto()  # in the client's folder, finished; never written to
    ALTERED = auto()  # as VISIBLE, but somebody has changed it since: good for the units that are still right


class _File:
    """One file of the store: what is held of it, where its bytes are, and its journal while it is written."""

    __slots__ = ("intake", "journal", "place", "saved")

    def __init__(self, intake: Intake, saved: FileBytes, journal: Journal, place: _Place) -> None:
        self.intake = intake
        self.saved = saved
        self.journal = journal
        self.place = place

    @property
    def held(self) -> Held:
        return Held(self.intake.verified.copy(), self.place is _Place.VISIBLE)


class DiskStore:
    """Implements ``pspd.core.storage.Storage`` in a folder; for one thread at a time.

    Attributes:
        instance_id: 16 random bytes that name this folder's client for good.
    """

    def __init__(self, folder: Path, digest: Digest, max_bytes: int | None = None, *, verifies: bool = False) -> None:
        """Takes the folder, makes it if need be, and reads what is there from before.

        After the machine was restarted, this verifies once the bytes that were written before; else
        finished files that look the same are trusted, and journals that were written after the part.

        Args:
            folder: where files appear.
            digest: what manifests are made with.
            max_bytes: how large the network's files in the folder may be together; None for any size.
            verifies: read all that is there, as if nothing were known of it.

        Raises:
            StorageError: the folder is another client's, or cannot be used.
        """
        self._folder = folder
        self._work = folder / STORE_FOLDER
        self._digest = digest
        self._max_bytes = max_bytes
        self._verifies = verifies
        self._records = Records(self._work, digest)
        self._folders = Folders(folder, self._records, digest)
        self._open_files = OpenFiles()
        self._files: dict[FileId, _File] = {}
        try:
            self._work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed("use", self._work, error) from None
        self._lock_fd = lock_folder(folder, self._work / "lock")
        try:
            self.instance_id = instance_of(self._work / "instance")
            self._boot = boot_id()
            self._same_boot = self._records.boot() == self._boot and not verifies
            self._load()
        except BaseException:
            self.close()
            raise

    def known(self) -> dict[FileId, Held]:
        """See ``Storage.known``.

        A finished file that somebody has changed is not complete, and held as far as its bytes are still
        right; one that was removed is forgotten.
        """
        return {file_id: file.held for file_id, file in self._files.items()}

    def manifest(self, file_id: FileId) -> Manifest:
        """The manifest that a file was last begun with."""
        return self._file(file_id).intake.manifest

    def begin(self, manifest: Manifest) -> Held:
        """See ``Storage.begin``. A manifest divided otherwise than before is taken, and saved.

        Raises:
            StorageError: a file of that name with other bytes is in the folder, it is more than may be taken, or
                nothing can be saved.
        """
        file_id = manifest.file_id
        file = self._files.get(file_id)
        if file is not None and file.place is _Place.ALTERED and self._is_in_the_way(file):
            raise self._conflict(manifest)
        if file is None or file.place is not _Place.VISIBLE:
            adopted = self._adopted(manifest)
            if adopted is not None:
                file = adopted
            elif file is not None and file.place is _Place.ALTERED and manifest.is_folder:
                file.intake.verify_all()  # what was in the folder's way is gone; its archive never was altered
                file = self._taken_back(file, set_aside=False)
            elif file is None or file.place is not _Place.PART:
                self._require_room(manifest)
                self._records.save_manifest(manifest)
                file = self._resumed(manifest)
        if file.intake.manifest != manifest:
            # Until all of it is saved, the file is not known: then the next attempt starts from the disk.
            self._files.pop(file_id, None)
            self._redivide(file, manifest)
        self._files[file_id] = file
        return file.held

    def write(self, file_id: FileId, start: int, stop: int, data: memoryview) -> Written:
        """See ``Storage.write``."""
        file = self._file(file_id)
        if file.place is _Place.ALTERED:
            raise self._conflict(file.intake.manifest)
        written = file.intake.write(start, stop, data)
        # A journal that is younger than what somebody else wrote would vouch for it after a restart.
        if written.verified and not file.saved.altered:
            file.journal.append(written.verified)
        return written

    def payload(self, file_id: FileId, start: int, stop: int) -> FileSlice:
        """See ``Storage.payload``.

        That nobody else has written to the file is looked at first.
        The slice's descriptor stays the store's: it is good until ``OPEN_FILES_MAX`` others were opened
        since it was last asked for, or the store is closed. Who sends across that needs ``os.dup``.

        Raises:
            InternalError: not all these chunks are verified.
            StorageError: somebody has changed the file, or it cannot be read.
        """
        file = self._file(file_id)
        offset, length = file.intake.payload_span(start, stop)
        if file.saved.altered:
            raise StorageError(f"{file.saved.path} was changed by somebody")
        return FileSlice(file.saved.fd, offset, length)

    def missing(self, file_id: FileId) -> RangeSet:
        """See ``Storage.missing``."""
        return self._file(file_id).intake.missing()

    def finish(self, file_id: FileId) -> None:
        """See ``Storage.finish`` (R10).

        Raises:
            IntegrityError: not all of it is verified, or somebody has written to it since.
            StorageError: another file has that name, or the disk fails.
        """
        file = self._file(file_id)
        manifest, part = file.intake.manifest, file.saved.path
        if file.place is _Place.VISIBLE:
            return
        if file.place is _Place.ALTERED:
            raise self._conflict(manifest)
        if file.saved.altered:
            raise IntegrityError(f"{part} was changed by somebody: verify it")
        if not file.intake.complete:
            raise IntegrityError(not_verified(manifest, file.intake.verified))
        visible = self._finished_path(manifest)
        try:
            os.ftruncate(file.saved.fd, manifest.size_bytes)
            file.saved.see()
            state = os.fstat(file.saved.fd)
            if manifest.is_folder:
                self._folders.require_unpacked(manifest, part)
            publish_file(part, visible)
        except FileExistsError:
            raise self._conflict(manifest) from None
        except OSError as error:
            raise failed("finish", visible, error) from None
        self._records.save_mark(manifest.file_id, _mark(manifest, state, self._boot))
        if manifest.is_folder:
            self._folders.publish(manifest)
        self._open_files.move(part, visible)
        file.saved = FileBytes(visible, _VISIBLE_FLAGS, self._open_files)
        file.saved.see()
        file.place = _Place.VISIBLE
        self._remove_work(file_id)

    def flush_of(self, file_id: FileId) -> Callable[[], None]:
        """What waits until a finished file is on the disk, whatever happens to the machine then; for any thread.

        Say :meth:`flushed` when it has returned. It raises ``StorageError`` if the disk fails.
        """
        file = self._file(file_id)
        path, name = file.saved.path, self._folders.visible(file.intake.manifest)
        if not file.intake.manifest.is_folder:
            return lambda: flush_file(path)

        def flush() -> None:
            flush_file(path)
            flush_tree(name)

        return flush

    def flushed(self, file_id: FileId) -> None:
        """A finished file is on the disk: unless it was changed, it need not be read again after the next boot.

        Raises:
            StorageError: that cannot be noted.
        """
        file = self._files.get(file_id)
        mark = self._records.mark(file_id)
        if self._lock_fd < 0 or file is None or mark is None or mark.boot_id != self._boot:
            return
        state = plain_state(self._finished_path(file.intake.manifest))
        if state is not None and (state.st_size, state.st_mtime_ns) == (mark.size_bytes, mark.mtime_ns):
            self._records.save_mark(file_id, _mark(file.intake.manifest, state, ON_DISK))

    def verify(self, file_id: FileId) -> None:
        """See ``Storage.verify``. A finished file that is not right any more is the user's: it is left alone.

        Raises:
            StorageError: the disk fails.
        """
        file = self._file(file_id)
        # What cannot be verified is not known: then the next attempt starts from the disk.
        del self._files[file_id]
        if file.place is _Place.PART:
            self._folders.remove_unpacked(file_id)
            file.saved.see()
            file.intake.verify_all()
            file.journal.rewrite(file.intake.verified)
            self._files[file_id] = file
            return
        manifest = file.intake.manifest
        # Nothing that was noted of it is to be trusted, now or after a restart.
        mark = Mark(manifest.name, size_bytes=0, mtime_ns=0, boot_id=UNVERIFIED)
        self._records.save_mark(file_id, mark)
        verified = self._finished(manifest, mark)
        if verified is not None:
            self._files[file_id] = verified

    def unpacking_of(self, file_id: FileId) -> Callable[[], None] | None:
        """What unpacks a folder of which all is verified, so that :meth:`finish` need not; for any thread.

        None for a file, and for a folder that is unpacked or finished. See ``Folders.unpacking_of``.
        """
        file = self._file(file_id)
        if not file.intake.manifest.is_folder or file.place is not _Place.PART:
            return None
        return self._folders.unpacking_of(file.intake.manifest, file.saved.path)

    def discard(self, file_id: FileId) -> None:
        """See ``Storage.discard``. What a thread unpacks of it just now is left: discard it again when that is done.

        Raises:
            StorageError: something cannot be removed.
        """
        file = self._files.pop(file_id, None)
        if file is not None:
            self._open_files.close(file.saved.path)
        self._remove_work(file_id)
        self._records.remove(file_id, "tar", "done", "manifest")

    def close(self) -> None:
        """Closes all files and gives the folder free; idempotent. Writes nothing: a crash loses no more."""
        self._folders.end()
        self._open_files.close_all()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _require_room(self, manifest: Manifest) -> None:
        others = (file.intake.manifest for file_id, file in self._files.items() if file_id != manifest.file_id)
        used_bytes = sum(map(_disk_bytes, others))
        needed_bytes = _disk_bytes(manifest)
        if self._max_bytes is not None and used_bytes + needed_bytes > self._max_bytes:
            raise StorageError(over_quota(manifest, needed_bytes, self._max_bytes - used_bytes, self._max_bytes))

    def _file(self, file_id: FileId) -> _File:
        try:
            return self._files[file_id]
        except KeyError:
            raise not_begun(file_id) from None

    def _load(self) -> None:
        all_taken_up = True
        seen: set[FileId] = set()
        for manifest in self._records.manifests():
            seen.add(manifest.file_id)
            try:
                mark = self._records.mark(manifest.file_id)
                file = self._finished(manifest, mark) if mark is not None else self._resumed(manifest)
            except StorageError as error:
                _LOG.warning("%r is not taken up: %s", manifest.name, error)
                all_taken_up = False
            else:
                if file is not None:
                    self._files[manifest.file_id] = file
        self._folders.remove_strays(self._work)
        if all_taken_up and not self._same_boot:
            # Everything was verified again: from here on the journals can be trusted, those that are left.
            self._records.remove_strays("held", seen)
            self._records.save_boot(self._boot)
            self._same_boot = True

    def _finished(self, manifest: Manifest, mark: Mark) -> _File | None:
        """A file that was finished, as far as it is still what it was; None if nothing of it is left."""
        visible = self._finished_path(manifest)
        state = plain_state(visible)
        if manifest.is_folder and not os.path.lexists(self._folders.visible(manifest)):
            state = None  # what others are sent is there, and the folder is not
        if state is None and self._records.path(manifest.file_id, "part").exists():
            return self._resumed(manifest)
        self._remove_work(manifest.file_id)
        if state is None:
            _LOG.warning("%s was removed, and is forgotten", self._folders.visible(manifest))
            self._records.remove(manifest.file_id, "tar", "done", "manifest")
            return None
        file = self._visible_file(manifest)
        if manifest.is_folder and self._folders.is_replaced(manifest):
            _LOG.warning("%s is no folder any more, and no longer complete", self._folders.visible(manifest))
            file.place = _Place.ALTERED
            return file
        unchanged = (state.st_size, state.st_mtime_ns) == (mark.size_bytes, mark.mtime_ns)
        if unchanged and mark.boot_id in (ON_DISK, self._boot) and not self._verifies:
            file.intake.take_up(RangeSet([Range(0, manifest.chunk_count)]), ())
            return file
        file.intake.verify_all()
        is_torn = manifest.is_folder and self._is_torn(manifest, mark)
        if file.intake.complete and state.st_size == manifest.size_bytes and not is_torn:
            # Of what is unpacked nothing more can be said later than that it was right, or touched, by now.
            boot = ON_DISK if unchanged or manifest.is_folder else self._boot
            self._records.save_mark(manifest.file_id, _mark(manifest, state, boot))
            return file
        if manifest.is_folder:
            return self._taken_back(file, set_aside=is_torn)
        if self._went_down_with(manifest.file_id, mark, state) or (unchanged and self._verifies):
            return self._taken_back(file)
        _LOG.warning("%s was changed, and is no longer complete", visible)
        file.place = _Place.ALTERED
        return file

    def _went_down_with(self, file_id: FileId, mark: Mark | None, state: os.stat_result) -> bool:
        """Whether the machine went down before a finished file was on the disk, and nobody has touched it since.

        Whoever changes, replaces or restores a file gives it a later time of change; only the machine does not.
        """
        if mark is None or not _may_be_torn(mark, self._boot):
            return False
        return state.st_ctime_ns <= self._records.marked_at(file_id) + _MARKING_NS

    def _taken_back(self, damaged: _File, *, set_aside: bool = True) -> _File:
        """A finished file of which the disk has not kept every byte, or never got: it is written again.

        What is right of it is copied; the rest is fetched. Under its own name it would be taken for the file, so it
        is set aside, and left to the user: nothing is ever removed that might be theirs.
        """
        manifest, visible = damaged.intake.manifest, self._folders.visible(damaged.intake.manifest)
        file = self._resumed(manifest, begun=True)
        self._copy(damaged.intake.verified, damaged.saved.read_at, file)
        self._open_files.close(damaged.saved.path)
        if set_aside:
            self._set_aside(visible)
        self._records.remove(manifest.file_id, "tar", "done")
        return file

    def _set_aside(self, visible: Path) -> None:
        numbered = (visible.with_name(f"{visible.name}.damaged-{number}") for number in count(1))
        aside = next(path for path in numbered if not os.path.lexists(path))
        _LOG.warning("%s was damaged on the disk: it is fetched again, and is now %s", visible, aside.name)
        try:
            os.rename(visible, aside)
        except OSError as error:
            raise failed("set aside", visible, error) from None

    @staticmethod
    def _copy(ranges: RangeSet, read_at: ReadAt, file: _File) -> None:
        """Takes chunks in from somewhere else on this disk, as if they had been delivered."""
        for start, stop in ranges:
            for first in range(start, stop, _COPIED_CHUNKS):
                last = min(first + _COPIED_CHUNKS, stop)
                data = memoryview(read_at(*file.intake.manifest.byte_span(first, last)))
                file.journal.append(file.intake.write(first, last, data).verified)

    def _resumed(self, manifest: Manifest, *, begun: bool = False) -> _File:
        """A file that is to be written, with whatever is there of it; ``begun`` keeps a mark that is still good."""
        file_id = manifest.file_id
        if not begun:
            self._records.remove(file_id, "done")
        part = FileBytes(self._records.path(file_id, "part"), _PART_FLAGS, self._open_files)
        journal = Journal(self._records.path(file_id, "held"), self._open_files)
        file = _File(Intake(manifest, part, self._digest), part, journal, _Place.PART)
        journalled, flawless = journal.read(manifest.chunk_count)
        saved_bytes = part.size_bytes
        whole = all(sum(manifest.byte_span(*span)) <= saved_bytes for span in journalled)
        # Whoever wrote to the part after the journal's last entry may have been somebody else.
        in_order = part.mtime_ns <= journal.mtime_ns
        if self._same_boot and whole and in_order:
            file.intake.take_up(journalled, ())
        else:
            file.intake.take_up(RangeSet(), journalled)
        if not flawless or not in_order or file.intake.verified != journalled:
            journal.rewrite(file.intake.verified)
        visible = self._finished_path(manifest)
        if not file.intake.complete and is_same_file(visible, part.path):
            remove_file(visible)  # the machine went down between the name and the bytes
        part.see()
        return file

    def _adopted(self, manifest: Manifest) -> _File | None:
        """The file of that name in the client's folder if its bytes are right; None if there is none.

        Raises:
            StorageError: it is another file.
        """
        visible, part = self._folders.visible(manifest), self._records.path(manifest.file_id, "part")
        if not os.path.lexists(visible) or is_same_file(visible, part):
            return None
        if manifest.is_folder:
            return self._adopted_folder(manifest)
        state = plain_state(visible)
        if state is not None and state.st_size == manifest.size_bytes:
            file = self._visible_file(manifest)
            file.intake.verify_all()
            if file.intake.complete:
                self._records.save_manifest(manifest)
                self._records.save_mark(manifest.file_id, _mark(manifest, state, self._boot))
                self._remove_work(manifest.file_id)
                return file
        mark = self._records.mark(manifest.file_id)
        if state is not None and self._went_down_with(manifest.file_id, mark, state):
            return self._adopted_damaged(manifest)
        raise self._conflict(manifest)

    def _adopted_folder(self, manifest: Manifest) -> _File:
        """A folder of that name that is the very same: its archive is read out of it, and need not be fetched."""
        if not self._folders.is_as_sent(manifest):
            mark = self._records.mark(manifest.file_id)
            if mark is None or not self._is_torn(manifest, mark):
                raise self._conflict(manifest)
            return self._adopted_damaged(manifest)
        self._require_room(manifest)
        self._records.save_manifest(manifest)
        self._records.remove(manifest.file_id, "tar")
        file = self._resumed(manifest)
        with closing(FolderArchive(self._folders.visible(manifest))) as archive:
            self._copy(file.intake.missing(), archive.read_at, file)
        return file

    def _adopted_damaged(self, manifest: Manifest) -> _File:
        """What bears the name is ours, of which the disk has lost some, and the manifest's record besides."""
        damaged = self._visible_file(manifest)
        damaged.intake.verify_all()
        self._records.save_manifest(manifest)
        return self._taken_back(damaged)

    def _is_torn(self, manifest: Manifest, mark: Mark) -> bool:
        """Whether a folder had not reached the disk when the machine went down, and nobody has touched it since."""
        marked_at = self._records.marked_at(manifest.file_id)
        return _may_be_torn(mark, self._boot) and self._folders.is_lost(manifest, marked_at + _MARKING_NS)

    def _is_in_the_way(self, file: _File) -> bool:
        """Whether what somebody has changed, or put in a file's place, is still there."""
        manifest = file.intake.manifest
        return self._folders.is_replaced(manifest) if manifest.is_folder else file.saved.is_as_seen

    def _finished_path(self, manifest: Manifest) -> Path:
        """Where the bytes are that are sent to others, once it is finished."""
        return self._folders.archive(manifest) if manifest.is_folder else self._folders.visible(manifest)

    def _visible_file(self, manifest: Manifest) -> _File:
        saved = FileBytes(self._finished_path(manifest), _VISIBLE_FLAGS, self._open_files)
        # Who has put another file there may have left us with the old one's descriptor.
        self._open_files.close(saved.path)
        saved.see()
        journal = Journal(self._records.path(manifest.file_id, "held"), self._open_files)
        return _File(Intake(manifest, saved, self._digest), saved, journal, _Place.VISIBLE)

    def _redivide(self, file: _File, manifest: Manifest) -> None:
        file.intake.redivide(manifest)
        if file.place is _Place.PART:
            # Before the manifest: chunks that are only kept from now on may be written over.
            file.journal.rewrite(file.intake.verified)
        self._records.save_manifest(manifest)

    def _conflict(self, manifest: Manifest) -> StorageError:
        return StorageError(name_conflict(manifest.name, self._folder))

    def _remove_work(self, file_id: FileId) -> None:
        for suffix in ("part", "held"):
            self._open_files.close(self._records.path(file_id, suffix))
            self._records.remove(file_id, suffix)
        self._folders.remove_unpacked(file_id)


def _disk_bytes(manifest: Manifest) -> int:
    """What it takes of the disk: of a folder there are its archive and what is unpacked of it."""
    return manifest.size_bytes * (2 if manifest.is_folder else 1)


def _may_be_torn(mark: Mark, boot: str) -> bool:
    """Whether what was marked as finished may not have reached the disk when the machine went down."""
    return mark.boot_id not in (ON_DISK, UNVERIFIED, boot)


def _mark(manifest: Manifest, state: os.stat_result, boot: str) -> Mark:
    return Mark(manifest.name, state.st_size, state.st_mtime_ns, boot)
