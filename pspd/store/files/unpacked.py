"""Unpack the folders that a client receives, and give them their names."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pspd.core.model.manifest import FileId, Manifest
from pspd.errors import StorageError
from pspd.store.files.records import Records
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import stat_regular
from pspd.store.layout import COMPLETION, UNPACKED, UNPACKING
from pspd.store.tree.traverse import is_real_folder, remove_tree
from pspd.store.tree.unpack import folder_matches, unpack

_LOG = logging.getLogger(__name__)


class UnpackedFolders:
    """The unpacked folders of a client. Several threads may unpack at the same time.

    Args:
        records: the records of a client's folder that this process has locked.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._unpacking: set[FileId] = set()
        self._is_stopping = False

    def is_intact(self, manifest: Manifest) -> bool:
        """Return whether a folder has the name, and an archive made from it would match the manifest."""
        return folder_matches(manifest, self._records.visible_path(manifest), self._records.digest)

    def is_replaced(self, manifest: Manifest) -> bool:
        """Return whether something other than a folder, such as a link to one, has the folder's name."""
        visible_path = self._records.visible_path(manifest)
        return os.path.lexists(visible_path) and not is_real_folder(visible_path)

    def unpack_job(self, manifest: Manifest, archive: Path) -> Callable[[], None] | None:
        """Return a function that unpacks a verified archive, callable in any thread.

        Return None if the folder is already unpacked or its name is taken. The function raises ``StorageError`` if the
        archive cannot be unpacked, or if the archive is changed or the store is closed meanwhile.

        Args:
            manifest: the folder's manifest.
            archive: the path of the folder's archive.
        """
        # The path is unique, because a thread of an earlier client in this process may still be unpacking the folder.
        temporary = self._records.hidden_path(manifest.file_id, f"{UNPACKING}-{os.urandom(4).hex()}")
        unpacked = self._records.hidden_path(manifest.file_id, UNPACKED)
        if unpacked.exists() or os.path.lexists(self._records.visible_path(manifest)):
            return None
        before = _state_of(archive)

        def raise_if_stopping() -> None:
            if self._is_stopping:
                raise StorageError(f"{manifest.name!r} is not unpacked: the client is stopping")

        def unpack_all() -> None:
            self._unpacking.add(manifest.file_id)
            try:
                unpack(archive, temporary, raise_if_stopping)
                if _state_of(archive) != before:
                    raise StorageError(f"{manifest.name!r} was changed while it was unpacked")
                raise_if_stopping()
                os.rename(temporary, unpacked)
            except OSError as error:
                raise storage_error("unpack", unpacked, error) from None
            finally:
                with suppress(StorageError):
                    remove_tree(temporary)
                self._unpacking.discard(manifest.file_id)

        return unpack_all

    def ensure_unpacked(self, manifest: Manifest, archive: Path) -> None:
        """Unpack a folder, unless it is already unpacked or an equal folder already has the name.

        Args:
            manifest: the folder's manifest.
            archive: the path of the folder's archive.

        Raises:
            FileExistsError: something else has the folder's name.
            StorageError: the archive cannot be unpacked.
        """
        visible_path = self._records.visible_path(manifest)
        if os.path.lexists(visible_path) and not self.is_intact(manifest):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(visible_path))
        unpack_all = self.unpack_job(manifest, archive)
        if unpack_all is not None:
            unpack_all()

    def publish(self, manifest: Manifest) -> None:
        """Give an unpacked folder its name (R10).

        Do nothing if the name is taken: after `ensure_unpacked`, only an equal folder can have it.

        The completion record must exist already, because after a crash it shows that the folder is this client's.

        Raises:
            StorageError: the folder cannot be renamed. The completion record is then removed.
        """
        visible_path = self._records.visible_path(manifest)
        if os.path.lexists(visible_path):
            return
        try:
            os.rename(self._records.hidden_path(manifest.file_id, UNPACKED), visible_path)
        except OSError as error:
            self._records.remove(manifest.file_id, COMPLETION)
            raise storage_error("finish", visible_path, error) from None

    def remove_unpacked(self, file_id: FileId) -> None:
        """Remove the unpacked copies of a folder from the hidden folder, unless a thread is unpacking the folder.

        Raises:
            StorageError: the folder cannot be removed.
        """
        if file_id in self._unpacking:
            return
        for path in self._records.hidden_folder.glob(f"{file_id.hex()}.unpack*"):
            remove_tree(path)

    def remove_all_unpacked(self) -> None:
        """Remove all unpacked folders from the hidden folder, as a crash may have damaged them. Errors are logged."""
        for path in self._records.hidden_folder.glob("*.unpack*"):
            try:
                remove_tree(path)
            except StorageError as error:
                _LOG.warning("%s", error)

    def stop(self) -> None:
        """Make all threads stop unpacking soon."""
        self._is_stopping = True


def _state_of(path: Path) -> tuple[int, int, int] | None:
    state = stat_regular(path)
    return state and (state.st_ino, state.st_size, state.st_mtime_ns)
