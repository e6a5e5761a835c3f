"""Stores the server's records of files and clients for a restart, but no byte of a file (R2).

The ledger is an SQLite database in the state folder. It does not record holdings, as clients report them when
they rejoin.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import FileId
from pspd.errors import PspError, StorageError
from pspd.store.digests import blake3_digest
from pspd.store.filesystem.files import PRIVATE_FILE_MODE, PRIVATE_FOLDER_MODE, make_private
from pspd.store.manifest_codec import decode_manifest, encode_manifest

VERSION = 1
_TABLES = """
    CREATE TABLE files (
        position INTEGER PRIMARY KEY AUTOINCREMENT, file_id BLOB UNIQUE NOT NULL, manifest BLOB NOT NULL,
        source TEXT NOT NULL, phase TEXT NOT NULL, held_back INTEGER NOT NULL, owners TEXT NOT NULL
    );
    CREATE TABLE clients (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SAVE_FILE = """
    INSERT INTO files (file_id, manifest, source, phase, held_back, owners) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (file_id) DO UPDATE SET manifest = excluded.manifest, source = excluded.source,
        phase = excluded.phase, held_back = excluded.held_back, owners = excluded.owners
"""

_LEDGER_NAMES = re.compile(r"server-\d+\.db(-wal|-shm|-journal)?")
_PRIVATE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

log = logging.getLogger(__name__)


def prepare_folder(folder: Path) -> None:
    """Create a state folder, if it does not exist, and check that files can be created in it.

    The folder becomes private to its owner, even if it existed before. A folder that contains anything except ledgers,
    or that is shared by design (it has the sticky bit, as ``/tmp`` does), keeps its mode.

    Raises:
        StorageError: the folder cannot be used.
    """
    try:
        folder.mkdir(PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
        is_shared = folder.stat().st_mode & stat.S_ISVTX
        if not is_shared and all(map(_LEDGER_NAMES.fullmatch, os.listdir(folder))):
            make_private(folder)
    except OSError as error:
        advice = "name another with --state-dir"
        raise StorageError(f"cannot use {folder} as state folder: {error.strerror}: {advice}") from None


def _make_file_private(path: Path) -> None:
    """Create a ledger if it does not exist, and make it and its logs private to its owner before SQLite opens it.

    SQLite gives new logs the mode of the ledger. Errors are ignored, because SQLite reports a file that it cannot open.
    """
    for suffix, flags in (("", os.O_CREAT), ("-wal", 0), ("-journal", 0)):
        with suppress(OSError):
            fd = os.open(f"{path}{suffix}", _PRIVATE_FLAGS | flags, PRIVATE_FILE_MODE)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    os.fchmod(fd, PRIVATE_FILE_MODE)
            finally:
                os.close(fd)


class Ledger:
    """The database of one server. It is locked while it is open.

    A file's record is on the disk when `save_file` returns. Changes of the names of connected clients are not
    flushed: a power loss may undo the latest of them. If a write fails, the server logs the error and continues.

    Args:
        path: the path of the database, which is created if it does not exist.

    Raises:
        StorageError: the file cannot be used, another server uses it, or it is not a ledger of this version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _make_file_private(path)
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._storage_error(error) from None
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(f"BEGIN EXCLUSIVE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"it was made by another version of pspd ({version})")
        except sqlite3.Error as error:
            self._database.close()
            raise self._storage_error(error) from None

    def _storage_error(self, error: sqlite3.Error) -> StorageError:
        if "locked" in str(error):
            return StorageError(f"{self._path} is locked: another server uses it: name another folder with --state-dir")
        return StorageError(f"cannot use {self._path}: {error}: move it away, or name another folder with --state-dir")

    def load(self) -> tuple[list[FileRecord], list[str]]:
        """Return all files, oldest first, and the names of the clients that were connected; skip and log bad records.

        Raises:
            StorageError: the database cannot be read.
        """
        try:
            rows = self._database.execute(
                "SELECT manifest, source, phase, held_back, owners FROM files ORDER BY position"
            ).fetchall()
            clients = [name for (name,) in self._database.execute("SELECT name FROM clients ORDER BY name")]
        except sqlite3.Error as error:
            raise self._storage_error(error) from None
        records = []
        for manifest, source, phase, held_back, owners in rows:
            try:
                names = tuple(map(str, json.loads(owners)))
                records.append(
                    FileRecord(decode_manifest(manifest, blake3_digest), source, Phase(phase), bool(held_back), names)
                )
            except (ValueError, TypeError, PspError) as error:
                log.error("skipped a file in %s: %s", self._path, error)
        return records, clients

    def save_file(self, record: FileRecord) -> None:
        """Save a file's record, in place of an earlier record of the file."""
        manifest, owners = encode_manifest(record.manifest), json.dumps(record.owners)
        values = (record.file_id, manifest, record.source, record.phase.value, record.held_back, owners)

        def save() -> None:
            self._database.execute(_SAVE_FILE, values)
            # Copy the record from the write-ahead log into the database, in case the log is lost.
            self._database.execute("PRAGMA wal_checkpoint").fetchall()

        self._change(save, durable=True)

    def remove_file(self, file_id: FileId) -> None:
        """Delete a file's record."""
        self._change(lambda: self._database.execute("DELETE FROM files WHERE file_id = ?", (file_id,)), durable=True)

    def clear(self) -> None:
        """Delete all records."""
        self._change(lambda: self._database.executescript("DELETE FROM files; DELETE FROM clients;"), durable=True)

    def add_client(self, name: str) -> None:
        """Record that a client is connected."""
        self._change(lambda: self._database.execute("INSERT OR IGNORE INTO clients VALUES (?)", (name,)))

    def remove_client(self, name: str) -> None:
        """Record that a client is no longer connected: a restarted server does not wait for it."""
        self._change(lambda: self._database.execute("DELETE FROM clients WHERE name = ?", (name,)))

    def _change(self, change: Callable[[], object], *, durable: bool = False) -> None:
        try:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            change()
        except sqlite3.Error as error:
            log.error("cannot write %s: %s: a restarted server will not know this change", self._path, error)

    def close(self) -> None:
        """Close and unlock the database."""
        self._database.close()
