"""What a client unpacks of a folder's archive, and what it does with that as long as it is its own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from pspd.core.model.manifest import Digest, Manifest
from pspd.errors import PspError, StorageError
from pspd.store.files.atomic import make_folder, open_private
from pspd.store.files.failures import failed
from pspd.store.files.sparse import write_sparse
from pspd.store.tree.archive import FILE, FOLDER, LINK, ArchiveError, Entry, FolderArchive, entries_of
from pspd.store.tree.walk import fail, walk

_COPIED_BYTES = 1024 * 1024
_NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# Nothing that somebody may have put there is waited for: the opening of a named pipe might take for ever.
_FLUSHED_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def unpack(archive: Path, place: Path, require_going: Callable[[], None]) -> None:
    """Unpacks an archive into a new folder; what was there is removed.

    Args:
        archive: the archive.
        place: the folder; what is in it of before is removed.
        require_going: called now and then; what it raises ends the unpacking.

    Raises:
        StorageError: it is not a folder's archive, or the disk fails.
    """
    remove_tree(place)
    try:
        with archive.open("rb", buffering=0) as source:
            fd = source.fileno()

            def read_at(offset: int, length: int) -> bytes:
                require_going()
                return os.pread(fd, length, offset)

            try:
                found = entries_of(read_at, os.fstat(fd).st_size)
            except ArchiveError as flaw:
                raise StorageError(f"a folder cannot be unpacked: {flaw}: do not trust who seeded it") from None
            for entry, content_at in found:
                require_going()
                if entry.kind == FOLDER:
                    make_folder(place / entry.name)
                elif entry.kind == FILE:
                    _unpack_file(fd, content_at, entry, place / entry.name, require_going)
            for entry, _ in found:
                if entry.kind == LINK:
                    os.symlink(entry.target, place / entry.name)
            for entry, _ in reversed(found):
                if entry.kind == FOLDER:
                    os.chmod(place / entry.name, entry.mode)
    except OSError as error:
        remove_tree(place)
        raise failed("unpack into", place, error) from None
    except BaseException:
        remove_tree(place)
        raise


def _unpack_file(source: int, offset: int, entry: Entry, path: Path, require_going: Callable[[], None]) -> None:
    fd = open_private(path, _NEW_FILE_FLAGS)
    try:
        end = offset + entry.size_bytes
        while offset < end:
            require_going()
            data = os.pread(source, min(_COPIED_BYTES, end - offset), offset)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            write_sparse(fd, entry.size_bytes - (end - offset), memoryview(data))
            offset += len(data)
        os.fchmod(fd, entry.mode)
    finally:
        os.close(fd)


def is_plain_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def is_folder_of(manifest: Manifest, folder: Path, digest: Digest) -> bool:
    """Whether a folder is just the one of which a manifest tells."""
    if not is_plain_folder(folder):
        return False
    try:
        with closing(FolderArchive(folder)) as archive:
            if archive.size_bytes != manifest.size_bytes:
                return False
            found = Manifest.build(manifest.name, archive.size_bytes, archive.read_at, digest, is_folder=True)
            return found.file_id == manifest.file_id
    except PspError:
        return False


def is_touched(place: Path, since_ns: int) -> bool:
    """Whether anything in a folder was changed after a time; also if that cannot be told."""
    try:
        for folder, _, names in walk(place, fail):
            if any(os.lstat(os.path.join(folder, name)).st_ctime_ns > since_ns for name in [*names, ""]):
                return True
    except OSError:
        return True
    return False


def remove_tree(place: Path) -> None:
    """Removes what is in a place of ours, if anything is: a folder with all that is in it, most likely.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        if is_plain_folder(place):
            os.chmod(place, stat.S_IRWXU)  # nothing can be removed from a folder that is read-only
            emptied: list[str] = []
            for folder, folders, others in walk(place, fail):
                emptied.append(folder)
                for name in folders:
                    os.chmod(os.path.join(folder, name), stat.S_IRWXU)
                for name in others:
                    os.unlink(os.path.join(folder, name))
            for folder in reversed(emptied):
                os.rmdir(folder)
        elif os.path.lexists(place):
            place.unlink()
    except OSError as error:
        raise failed("remove", place, error) from None


def flush_tree(place: Path) -> None:
    """Waits until a folder, its name and all that is in it are on the disk. What its user has taken away is left out.

    Raises:
        StorageError: the disk fails.
    """
    try:
        for folder, _, names in walk(place):
            for path in [*(os.path.join(folder, name) for name in names), folder]:
                _flush(path)
        _flush(place.parent)
    except OSError as error:
        raise failed("flush", place, error) from None


def _flush(path: str | Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        if stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return
        fd = os.open(path, _FLUSHED_FLAGS)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
