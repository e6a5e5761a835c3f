"""The folders in a client's folder: where what belongs to one lies, and how it gets from its archive to its name."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pspd.core.model.manifest import Digest, FileId, Manifest
from pspd.errors import StorageError
from pspd.store.files.atomic import plain_state
from pspd.store.files.failures import failed
from pspd.store.files.records import Records
from pspd.store.tree.unpack import is_folder_of, is_plain_folder, is_touched, remove_tree, unpack

_LOG = logging.getLogger(__name__)


class Folders:
    """Unpacks archives, beside each other in threads, and gives what is unpacked its name."""

    def __init__(self, place: Path, records: Records, digest: Digest) -> None:
        """Takes a client's folder, of which the lock is held.

        Args:
            place: the client's folder.
            records: where a folder's archive is, ``<id>.tar``, and what is unpacked of it, ``<id>.unpacked``.
            digest: what manifests are made with.
        """
        self._place = place
        self._records = records
        self._digest = digest
        self._unpacking: set[FileId] = set()
        self._has_ended = False

    def visible(self, manifest: Manifest) -> Path:
        """Where the user finds it."""
        return self._place / manifest.name

    def archive(self, manifest: Manifest) -> Path:
        """The bytes that are sent to others, once it is finished."""
        return self._records.path(manifest.file_id, "tar")

    def is_as_sent(self, manifest: Manifest) -> bool:
        """Whether a folder is under its name, just as its archive says."""
        return is_folder_of(manifest, self.visible(manifest), self._digest)

    def is_lost(self, manifest: Manifest, untouched_since_ns: int) -> bool:
        """Whether a folder is not as it was sent, and nobody has touched it since: the disk has not kept it."""
        return not self.is_as_sent(manifest) and not is_touched(self.visible(manifest), untouched_since_ns)

    def is_replaced(self, manifest: Manifest) -> bool:
        """Whether something else bears the folder's name."""
        return os.path.lexists(self.visible(manifest)) and not is_plain_folder(self.visible(manifest))

    def unpacking_of(self, manifest: Manifest, part: Path) -> Callable[[], None] | None:
        """What unpacks a folder's verified archive, for any thread; None if that was done, or its name is taken.

        It raises ``StorageError`` if the archive cannot be unpacked, was changed meanwhile, or the store is closed.
        """
        # A place of its own: what a client before us is still at is not mixed up with this.
        place = self._records.path(manifest.file_id, f"unpacking-{os.urandom(4).hex()}")
        unpacked = self._records.path(manifest.file_id, "unpacked")
        if unpacked.exists() or os.path.lexists(self.visible(manifest)):
            return None
        before = _known_by(part)

        def require_going() -> None:
            if self._has_ended:
                raise StorageError(f"{manifest.name!r} is not unpacked: the client ends")

        def unpack_whole() -> None:
            self._unpacking.add(manifest.file_id)
            try:
                unpack(part, place, require_going)
                if _known_by(part) != before:
                    raise StorageError(f"{manifest.name!r} was changed while it was unpacked")
                require_going()
                os.rename(place, unpacked)
            except OSError as error:
                raise failed("unpack", unpacked, error) from None
            finally:
                with suppress(StorageError):
                    remove_tree(place)
                self._unpacking.discard(manifest.file_id)

        return unpack_whole

    def require_unpacked(self, manifest: Manifest, part: Path) -> None:
        """Unpacks a folder, if that was not done yet.

        Raises:
            FileExistsError: the name is another's.
            StorageError: as it is unpacked.
        """
        visible = self.visible(manifest)
        if os.path.lexists(visible) and not self.is_as_sent(manifest):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(visible))
        unpack_whole = self.unpacking_of(manifest, part)
        if unpack_whole is not None:
            unpack_whole()

    def publish(self, manifest: Manifest) -> None:
        """Gives what is unpacked its name (R10), unless it has it already.

        The mark is there by then: should the machine go down now, it tells that what bears the name is ours.
        """
        visible = self.visible(manifest)
        if os.path.lexists(visible):
            return
        try:
            os.rename(self._records.path(manifest.file_id, "unpacked"), visible)
        except OSError as error:
            self._records.remove(manifest.file_id, "done")
            raise failed("finish", visible, error) from None

    def remove_unpacked(self, file_id: FileId) -> None:
        """Removes what was unpacked and has no name yet, unless a thread is at it.

        Raises:
            StorageError: it cannot be removed.
        """
        unpacked = self._records.path(file_id, "unpacked")
        for path in unpacked.parent.glob(f"{unpacked.stem}.unpack*") if file_id not in self._unpacking else ():
            remove_tree(path)

    def remove_strays(self, work: Path) -> None:
        """Removes all that was unpacked by a client that has ended: perhaps the machine went down with it."""
        for path in work.glob("*.unpack*"):
            try:
                remove_tree(path)
            except StorageError as error:
                _LOG.warning("%s", error)

    def end(self) -> None:
        """Ends what is being unpacked, soon."""
        self._has_ended = True


def _known_by(path: Path) -> tuple[int, int, int] | None:
    state = plain_state(path)
    return state and (state.st_ino, state.st_size, state.st_mtime_ns)
