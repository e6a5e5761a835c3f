"""The files of a client's folder: each as it is opened, be it new or from before a crash, a power loss, or a user."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import closing
from enum import Enum, auto
from itertools import count
from pathlib import Path

from pspd.core.model.manifest import MODE_BITS, STORE_FOLDER, Digest, FileId, Manifest, ReadAt
from pspd.core.model.ranges import Range, RangeSet
from pspd.core.model.storage import Held
from pspd.errors import StorageError, StoreFailed
from pspd.store.files.atomic import derived_path, is_same_file, plain_state, remove_file
from pspd.store.files.descriptors import FileBytes, OpenFiles
from pspd.store.files.failures import failed
from pspd.store.files.journal import Journal
from pspd.store.files.records import ON_DISK, TORN, UNVERIFIED, Mark, Records
from pspd.store.files.verifier import BlockVerifier
from pspd.store.messages import name_conflict
from pspd.store.tree.archive import FolderArchive
from pspd.store.tree.unpacked import Folders

_LOG = logging.getLogger(__name__)

_MARKING_NS = 2_000_000_000
"""So long after its mark was written a finished file may still have been touched by us."""
_COPIED_CHUNKS = 1024
_STAT_BLOCK_BYTES = 512

_PART_FLAGS = os.O_RDWR | os.O_CREAT
# Not through a symbolic link: it would lead out of the folder.
_VISIBLE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW


class Place(Enum):
    """Where a file's bytes are."""

    PART = auto()  # in the hidden folder, to be written to
    VISIBLE = auto()  # in the client's folder, finished; never written to
    ALTERED = auto()  # as VISIBLE, but somebody has changed it since: good for the units that are still right


class StoredFile:
    """One file of the store: what is held of it, where its bytes are, and its journal while it is written."""

    __slots__ = ("intake", "journal", "place", "saved")

    def __init__(self, intake: BlockVerifier, saved: FileBytes, journal: Journal, place: Place) -> None:
        self.intake = intake
        self.saved = saved
        self.journal = journal
        self.place = place

    @property
    def held(self) -> Held:
        """What is held of it."""
        return Held(self.intake.verified.copy(), self.place is Place.VISIBLE)


class StoredFiles:
    """Opens the files of one folder, as far as what is there of them is good."""

    def __init__(
        self,
        folder: Path,
        records: Records,
        folders: Folders,
        open_files: OpenFiles,
        digest: Digest,
        boot: str,
        *,
        verifies: bool,
    ) -> None:
        """Takes the files of a folder of which the lock is held.

        Args:
            folder: where files appear.
            records: what was noted of them.
            folders: those of them that are folders.
            open_files: the descriptors.
            digest: what manifests are made with.
            boot: of the machine, the one that goes on now.
            verifies: read all that is there, as if nothing were known of it.
        """
        self._folder = folder
        self._records = records
        self._folders = folders
        self._open_files = open_files
        self._digest = digest
        self._boot = boot
        self._verifies = verifies
        self._trusts_journals = records.boot() == boot and not verifies

    def found(self) -> dict[FileId, StoredFile]:
        """What is there from before.

        After the machine was restarted, this verifies once the bytes that were written before; else
        finished files that look the same are trusted, and journals that were written after the part.
        """
        files: dict[FileId, StoredFile] = {}
        all_taken_up = True
        seen: set[FileId] = set()
        for manifest in self._records.manifests():
            seen.add(manifest.file_id)
            try:
                mark = self._records.mark(manifest.file_id)
                file = self.finished(manifest, mark) if mark is not None else self.resumed(manifest)
            except StoreFailed:
                raise
            except Exception as error:  # whatever it is, it is this file's
                _LOG.warning("%r is not taken up: %s", manifest.name, error)
                _LOG.debug("%r is not taken up: where:", manifest.name, exc_info=error)
                all_taken_up = False
            else:
                if file is not None:
                    files[manifest.file_id] = file
        self._folders.remove_strays(self._folder / STORE_FOLDER)
        if all_taken_up and not self._trusts_journals:
            # Everything was verified again: from here on the journals can be trusted, those that are left.
            self._records.remove_strays("held", seen)
            self._records.save_boot(self._boot)
            self._trusts_journals = True
        return files

    def finished(self, manifest: Manifest, mark: Mark) -> StoredFile | None:
        """A file that was finished, as far as it is still what it was; None if nothing of it is left."""
        visible = self.finished_path(manifest)
        state = plain_state(visible)
        if manifest.is_folder and not os.path.lexists(self._folders.visible(manifest)):
            state = None  # what others are sent is there, and the folder is not
        if state is None and self._records.path(manifest.file_id, "part").exists():
            return self.resumed(manifest)
        self.remove_work(manifest.file_id)
        if state is None:
            _LOG.warning("%s was removed, and is forgotten", self._folders.visible(manifest))
            self._records.remove(manifest.file_id, "tar", "done", "manifest")
            return None
        file = self._visible_file(manifest)
        if manifest.is_folder and self._folders.is_replaced(manifest):
            _LOG.warning("%s is no folder any more, and no longer complete", self._folders.visible(manifest))
            file.place = Place.ALTERED
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
            self._records.save_mark(manifest.file_id, self.mark(manifest, state, boot))
            return file
        if manifest.is_folder:
            return self.taken_back(file, set_aside=is_torn)
        if self._went_down_with(manifest.file_id, mark, state) or (unchanged and self._verifies):
            return self.taken_back(file)
        _LOG.warning("%s was changed, and is no longer complete", visible)
        file.place = Place.ALTERED
        return file

    def publish(self, file: StoredFile, state: os.stat_result) -> None:
        """A part has just got the file's own name: its mark follows, and only then does the part lose its own."""
        manifest = file.intake.manifest
        self._records.save_mark(manifest.file_id, self.mark(manifest, state))
        if manifest.is_folder:
            self._folders.publish(manifest)
        self._open_files.move(file.saved.path, self.finished_path(manifest))
        file.saved = FileBytes(self.finished_path(manifest), _VISIBLE_FLAGS, self._open_files)
        file.saved.see()
        file.place = Place.VISIBLE
        self.remove_work(manifest.file_id)

    def mark(self, manifest: Manifest, state: os.stat_result, boot: str | None = None) -> Mark:
        """What is noted of a finished file; as of the boot that goes on now, or of another."""
        return Mark(manifest.name, state.st_size, state.st_mtime_ns, self._boot if boot is None else boot)

    def _went_down_with(self, file_id: FileId, mark: Mark | None, state: os.stat_result) -> bool:
        """Whether the machine went down before a finished file was on the disk, and nobody has touched it since.

        Whoever changes, replaces or restores a file gives it a later time of change; only the machine does not.
        """
        if mark is None or not _may_be_torn(mark, self._boot):
            return False
        return state.st_ctime_ns <= self._records.marked_at(file_id) + _MARKING_NS

    def taken_back(self, damaged: StoredFile, *, set_aside: bool = True) -> StoredFile:
        """A finished file of which the disk has not kept every byte, or never got: it is written again.

        What is right of it is copied; the rest is fetched. Under its own name it would be taken for the file, so it
        is set aside, and left to the user: nothing is ever removed that might be theirs.
        """
        manifest, visible = damaged.intake.manifest, self._folders.visible(damaged.intake.manifest)
        self._records.distrust(manifest, TORN)
        file = self.resumed(manifest, begun=True)
        self._copy(damaged.intake.verified, damaged.saved.read_at, file)
        self._open_files.close(damaged.saved.path)
        if set_aside:
            self._set_aside(visible)
        self._records.remove(manifest.file_id, "tar", "done")
        return file

    def _set_aside(self, visible: Path) -> None:
        numbered = (derived_path(visible, f".damaged-{number}") for number in count(1))
        aside = next(path for path in numbered if not os.path.lexists(path))
        try:
            os.rename(visible, aside)
        except OSError as error:
            raise failed("set aside", visible, error) from None
        _LOG.warning("%s was damaged on the disk: it is now %s, and is fetched again", visible, aside.name)

    @staticmethod
    def _copy(ranges: RangeSet, read_at: ReadAt, file: StoredFile) -> None:
        """Takes chunks in from somewhere else on this disk, as if they had been delivered."""
        for start, stop in ranges:
            for first in range(start, stop, _COPIED_CHUNKS):
                last = min(first + _COPIED_CHUNKS, stop)
                data = memoryview(read_at(*file.intake.manifest.byte_span(first, last)))
                file.journal.append(file.intake.write(first, last, data).verified)

    def resumed(self, manifest: Manifest, *, begun: bool = False) -> StoredFile:
        """A file that is to be written, with whatever is there of it; ``begun`` keeps a mark that is still good."""
        file_id = manifest.file_id
        if not begun:
            self._records.remove(file_id, "done")
        part = FileBytes(self._records.path(file_id, "part"), _PART_FLAGS, self._open_files)
        journal = Journal(self._records.path(file_id, "held"), self._open_files)
        file = StoredFile(BlockVerifier(manifest, part, self._digest), part, journal, Place.PART)
        journalled, flawless = journal.read(manifest.chunk_count)
        saved_bytes = part.size_bytes
        whole = all(sum(manifest.byte_span(*span)) <= saved_bytes for span in journalled)
        # Whoever wrote to the part after the journal's last entry may have been somebody else.
        in_order = part.mtime_ns <= journal.mtime_ns
        if self._trusts_journals and whole and in_order:
            file.intake.take_up(journalled, ())
        else:
            file.intake.take_up(RangeSet(), journalled)
        if not flawless or not in_order or file.intake.verified != journalled:
            journal.rewrite(file.intake.verified)
        visible = self.finished_path(manifest)
        if not file.intake.complete and is_same_file(visible, part.path):
            remove_file(visible)  # the machine went down between the name and the bytes
        part.see()
        return file

    def adopted(self, manifest: Manifest, require_room: Callable[[Manifest, int], None]) -> StoredFile | None:
        """The file of that name in the client's folder if its bytes are right; None if there is none.

        ``require_room`` is asked, with how many bytes, before more is written than a manifest.

        Raises:
            StorageError: it is another file, or there is no room.
        """
        visible, part = self._folders.visible(manifest), self._records.path(manifest.file_id, "part")
        try:
            os.lstat(visible)
        except FileNotFoundError:
            return None
        except OSError as error:  # it could not be given this name either
            raise failed("look at", visible, error) from None
        if is_same_file(visible, part):
            return None
        if manifest.is_folder:
            return self._adopted_folder(manifest, require_room)
        state = plain_state(visible)
        if state is not None and state.st_size == manifest.size_bytes:
            file = self._visible_file(manifest)
            file.intake.verify_all()
            if file.intake.complete:
                if (mode := state.st_mode & MODE_BITS) != manifest.mode:
                    _LOG.info("%s is taken as it is, with mode %03o, not %03o", visible, mode, manifest.mode)
                self._records.save_manifest(manifest)
                self._records.save_mark(manifest.file_id, self.mark(manifest, state))
                self.remove_work(manifest.file_id)
                return file
        mark = self._records.mark(manifest.file_id)
        if state is not None and self._went_down_with(manifest.file_id, mark, state):
            return self._adopted_damaged(manifest)
        raise self.conflict(manifest)

    def written_bytes(self, file_id: FileId) -> int:
        """How much of the disk is taken by what is there of an unfinished file."""
        try:
            return self._records.path(file_id, "part").stat().st_blocks * _STAT_BLOCK_BYTES
        except OSError:
            return 0

    def _adopted_folder(self, manifest: Manifest, require_room: Callable[[Manifest, int], None]) -> StoredFile:
        """A folder of that name that is the very same: its archive is read out of it, and need not be fetched."""
        if not self._folders.is_as_sent(manifest):
            mark = self._records.mark(manifest.file_id)
            if mark is None or not self._is_torn(manifest, mark):
                raise self.conflict(manifest)
            return self._adopted_damaged(manifest)
        require_room(manifest, manifest.size_bytes)
        self._records.save_manifest(manifest)
        self._records.remove(manifest.file_id, "tar")
        file = self.resumed(manifest)
        with closing(FolderArchive(self._folders.visible(manifest))) as archive:
            self._copy(file.intake.missing(), archive.read_at, file)
        return file

    def _adopted_damaged(self, manifest: Manifest) -> StoredFile:
        """What bears the name is ours, of which the disk has lost some, and the manifest's record besides."""
        damaged = self._visible_file(manifest)
        damaged.intake.verify_all()
        self._records.save_manifest(manifest)
        return self.taken_back(damaged)

    def _is_torn(self, manifest: Manifest, mark: Mark) -> bool:
        """Whether a folder had not reached the disk when the machine went down, and nobody has touched it since."""
        marked_at = self._records.marked_at(manifest.file_id)
        return _may_be_torn(mark, self._boot) and self._folders.is_lost(manifest, marked_at + _MARKING_NS)

    def is_in_the_way(self, file: StoredFile) -> bool:
        """Whether what somebody has changed, or put in a file's place, is still there."""
        manifest = file.intake.manifest
        return self._folders.is_replaced(manifest) if manifest.is_folder else file.saved.is_as_seen

    def looks_as_finished(self, file: StoredFile) -> bool:
        """Whether nobody seems to have changed a finished file, or put something in its place.

        Raises:
            FileNotFoundError: it was removed.
            OSError: it cannot be looked at.
        """
        manifest = file.intake.manifest
        if manifest.is_folder and not stat.S_ISDIR(os.lstat(self._folders.visible(manifest)).st_mode):
            return False
        return file.saved.looks_as_seen(os.lstat(file.saved.path))

    def finished_path(self, manifest: Manifest) -> Path:
        """Where the bytes are that are sent to others, once it is finished."""
        return self._folders.archive(manifest) if manifest.is_folder else self._folders.visible(manifest)

    def _visible_file(self, manifest: Manifest) -> StoredFile:
        saved = FileBytes(self.finished_path(manifest), _VISIBLE_FLAGS, self._open_files)
        # Who has put another file there may have left us with the old one's descriptor.
        self._open_files.close(saved.path)
        saved.see()
        journal = Journal(self._records.path(manifest.file_id, "held"), self._open_files)
        return StoredFile(BlockVerifier(manifest, saved, self._digest), saved, journal, Place.VISIBLE)

    def remove_work(self, file_id: FileId) -> None:
        """Takes away what is only there while a file is written."""
        for suffix in ("part", "held"):
            self._open_files.close(self._records.path(file_id, suffix))
            self._records.remove(file_id, suffix)
        self._folders.remove_unpacked(file_id)

    def conflict(self, manifest: Manifest) -> StorageError:
        """What to say where something else bears the file's name."""
        return StorageError(name_conflict(manifest.name, self._folder))


def _may_be_torn(mark: Mark, boot: str) -> bool:
    """Whether what was marked as finished may not have reached the disk when the machine went down."""
    return mark.boot_id not in (ON_DISK, UNVERIFIED, boot)
