"""A client's folder: the lock, and the records in the hidden folder about the client's files."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pspd.core.model.manifest import STORE_FOLDER, DigestFunction, FileId, Manifest
from pspd.errors import StorageError, WrongState
from pspd.store.filesystem.failures import storage_error
from pspd.store.filesystem.files import PRIVATE_FOLDER_MODE, make_private, open_private, remove_file, replace_file
from pspd.store.layout import BOOT, COMPLETION, JOURNAL, LOCK, MANIFEST
from pspd.store.manifest_codec import decode_manifest, encode_manifest

INSTANCE_BYTES = 16
FLUSHED = ""
"""Replaces the boot id in a completion record of a flushed file, which a crash of the machine cannot damage."""
UNVERIFIED = "unverified"
"""Replaces the boot id in a completion record of a file that must be verified before it is used."""
DAMAGED = "torn"
"""Replaces the boot id in a completion record if the record is torn, or if the disk has damaged the file."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOCK_BYTES_MAX = 80

_LOG = logging.getLogger(__name__)


def lock_folder(folder: Path) -> int:
    """Create a client's folder if necessary, make its hidden folder private, and lock the folder for this process.

    The lock file names this process, so that a second client can name this process in its error.

    Returns:
        The descriptor of the lock; closing it releases the lock.

    Raises:
        WrongState: another client uses the folder.
        StorageError: the folder cannot be used or locked.
    """
    hidden_folder, lock = folder / STORE_FOLDER, folder / STORE_FOLDER / LOCK
    try:
        hidden_folder.mkdir(PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("use", hidden_folder, error) from None
    make_private(hidden_folder)  # earlier versions created files with the modes that the umask allows
    try:
        with ExitStack() as on_failure:
            fd = open_private(lock, os.O_RDWR | os.O_CREAT)
            on_failure.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process = os.pread(fd, _LOCK_BYTES_MAX, 0).decode("ascii", "replace")
                raise WrongState(
                    f"folder {folder} is in use by another client ({process or 'process unknown'}):"
                    " name another folder with --dir"
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
            on_failure.pop_all()
            return fd
    except OSError as error:
        raise storage_error("lock", lock, error) from None


def load_instance_id(path: Path) -> bytes:
    """Return the 16 random bytes that identify a folder's client; create them if they are not saved.

    Args:
        path: the file for these bytes. If it has more or fewer than 16 bytes, it is replaced.

    Raises:
        StorageError: the bytes cannot be read or saved.
    """
    saved = b""
    try:
        with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
            saved = file.read(INSTANCE_BYTES + 1)  # a link may lead to an endless device
    except OSError as error:
        raise storage_error("read", path, error) from None
    if len(saved) != INSTANCE_BYTES:
        saved = os.urandom(INSTANCE_BYTES)
        replace_file(path, saved)
    return saved


def current_boot_id() -> str:
    """Return the id of the machine's present boot; a new random id if the machine reports none.

    A killed process loses no byte that it has written. After a power failure, the disk may have the journal but not the
    bytes of the ranges in the journal, because neither is flushed. So saved bytes are trusted within one boot, and
    verified once in the next boot.
    """
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """The record of a finished file. The size and time show, without a read, whether the file has changed since.

    Attributes:
        name: the file's name in the client's folder; empty if the record is torn.
        size_bytes: the size of the file, or of a folder's archive.
        mtime_ns: the modification time of the file, or of a folder's archive, in nanoseconds.
        boot_id: the id of the boot in which the file was finished or last verified, or ``FLUSHED``, ``UNVERIFIED`` or
            ``DAMAGED``. With the last two, the size and time are 0.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    boot_id: str

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(record: bytes) -> CompletionRecord:
        """Return the record that :meth:`encode` encoded.

        Raises:
            ValueError, RecursionError: the record is torn or has another format.
        """
        match json.loads(record):
            case {"name": str(name), "size_bytes": int(size_bytes), "mtime_ns": int(mtime_ns), "boot_id": str(boot_id)}:
                return CompletionRecord(name, size_bytes, mtime_ns, boot_id)
        raise ValueError("the record has another format")

    def may_have_lost_bytes(self, boot_id: str) -> bool:
        """Return whether a crash of the machine, or the disk, may have damaged the file.

        The result is False for ``UNVERIFIED``: such a file is verified for another reason.

        Args:
            boot_id: the present boot id.
        """
        return self.boot_id not in (FLUSHED, UNVERIFIED, boot_id)

    def describes(self, state: os.stat_result) -> bool:
        """Return whether a file's state has the recorded size and modification time."""
        return (state.st_size, state.st_mtime_ns) == (self.size_bytes, self.mtime_ns)


class Records:
    """The paths and records of one client's folder.

    Attributes:
        folder: the client's folder.
        hidden_folder: the hidden folder in ``folder``.
        digest: the digest function of manifests.
    """

    def __init__(self, folder: Path, digest: DigestFunction) -> None:
        """Set the paths. This creates nothing on the disk.

        Args:
            folder: the client's folder.
            digest: the digest function of manifests.
        """
        self.folder = folder
        self.hidden_folder = folder / STORE_FOLDER
        self.digest = digest

    def visible_path(self, manifest: Manifest) -> Path:
        """Return the path of the finished file or folder that the user sees."""
        return self.folder / manifest.name

    def hidden_path(self, file_id: FileId, suffix: str) -> Path:
        """Return the path in the hidden folder with a file's id and a suffix.

        Args:
            file_id: the file's id.
            suffix: the suffix, from ``pspd.store.layout``.
        """
        return self.hidden_folder / f"{file_id.hex()}.{suffix}"

    def manifests(self) -> Iterator[Manifest]:
        """Yield every saved manifest; skip each that is unreadable or invalid, and log a warning."""
        for path in sorted(self.hidden_folder.glob(f"*.{MANIFEST}")):
            try:
                manifest = decode_manifest(path.read_bytes(), self.digest)
                if manifest.file_id.hex() != path.stem:
                    raise ValueError("the manifest of another file")
            except Exception as error:  # any error concerns only this file
                _LOG.warning("ignoring %s: %s", path, error)
            else:
                yield manifest

    def save_manifest(self, manifest: Manifest) -> None:
        """Save a manifest; replace an earlier manifest of the same file.

        Raises:
            StorageError: the manifest cannot be saved.
        """
        replace_file(self.hidden_path(manifest.file_id, MANIFEST), encode_manifest(manifest))

    def completion(self, file_id: FileId) -> CompletionRecord | None:
        """Return the completion record of a file; None if there is no record, or the record cannot be read.

        For a torn record, return a record with ``DAMAGED``: even a torn record shows that the file was finished.
        """
        path = self.hidden_path(file_id, COMPLETION)
        try:
            return CompletionRecord.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            _LOG.warning("%s is torn: %s", path, error)
            return CompletionRecord("", size_bytes=0, mtime_ns=0, boot_id=DAMAGED)
        except OSError as error:
            _LOG.warning("ignoring %s: %s", path, error)
            return None

    def save_completion(self, manifest: Manifest, state: os.stat_result, boot_id: str) -> None:
        """Record that a file is finished; replace an earlier record.

        Args:
            manifest: the file's manifest.
            state: the ``stat`` result of the file, or of a folder's archive.
            boot_id: the present boot id, or ``FLUSHED``.

        Raises:
            StorageError: the record cannot be saved.
        """
        record = CompletionRecord(manifest.name, state.st_size, state.st_mtime_ns, boot_id)
        replace_file(self.hidden_path(manifest.file_id, COMPLETION), record.encode())

    def invalidate_completion(self, manifest: Manifest, marker: str) -> CompletionRecord:
        """Record that a finished file must be verified, and return the record.

        Call this before any step of the verification or the repair that can fail.

        Args:
            manifest: the file's manifest.
            marker: ``UNVERIFIED``, or ``DAMAGED`` if the disk has damaged the file.

        Raises:
            StorageError: the record cannot be saved. The earlier record is then removed, so that the store treats the
                file as the user's.
        """
        record = CompletionRecord(manifest.name, size_bytes=0, mtime_ns=0, boot_id=marker)
        try:
            replace_file(self.hidden_path(manifest.file_id, COMPLETION), record.encode())
        except StorageError:
            self.remove(manifest.file_id, COMPLETION)
            raise
        return record

    def remove(self, file_id: FileId, *suffixes: str) -> None:
        """Remove files with a file's id from the hidden folder, if they exist.

        Args:
            file_id: the file's id.
            suffixes: the suffixes of the files, from ``pspd.store.layout``.

        Raises:
            StorageError: a file cannot be removed.
        """
        for suffix in suffixes:
            remove_file(self.hidden_path(file_id, suffix))

    def remove_journals_except(self, file_ids: Collection[FileId]) -> None:
        """Remove all journals except those of the given files.

        Raises:
            StorageError: a journal cannot be removed.
        """
        kept = {file_id.hex() for file_id in file_ids}
        for path in self.hidden_folder.glob(f"*.{JOURNAL}"):
            if path.stem not in kept:
                remove_file(path)

    def trusted_boot_id(self) -> str:
        """Return the id of the boot in which the journals can be trusted; an empty string if it is unknown."""
        try:
            return (self.hidden_folder / BOOT).read_text("ascii")
        except (OSError, ValueError):
            return ""

    def save_trusted_boot_id(self, boot_id: str) -> None:
        """Record the id of the boot in which the journals can be trusted.

        Raises:
            StorageError: the id cannot be saved.
        """
        replace_file(self.hidden_folder / BOOT, boot_id.encode())
