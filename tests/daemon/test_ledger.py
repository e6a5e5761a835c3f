"""A ledger survives its server; an unreadable or unwritable record affects no other record."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from pspd.core.model.file_record import FileRecord, Phase
from pspd.core.model.manifest import Manifest
from pspd.daemon.server.ledger import Ledger, prepare_folder
from pspd.errors import StorageError
from pspd.store.digests import blake3_digest
from tests.store.stores import mode_of, umask_of


def record_of(name: str, size_bytes: int = 10_000, phase: Phase = Phase.SEEDING) -> FileRecord:
    def read_at(offset: int, length: int) -> bytes:
        return bytes(length)

    manifest = Manifest.build(name, size_bytes, read_at, blake3_digest).divided(3, read_at, blake3_digest)
    return FileRecord(manifest, "source", phase, held_back=True, owners=("a", "b", "ü"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


def test_files_and_clients_are_restored_in_order(path: Path) -> None:
    files = [record_of(name) for name in ("z", "ä", "m")]
    ledger = Ledger(path)
    for file in files:
        ledger.save_file(file)
    for name in ("b", "a", "gone", "a"):
        ledger.add_client(name)
    ledger.remove_client("gone")
    ledger.remove_client("never there")
    ledger.close()
    assert Ledger(path).load() == (files, ["a", "b"])


def test_file_mode_is_restored(path: Path) -> None:
    manifest = Manifest.parse("run.sh", 0, b"", blake3_digest, mode=0o755)
    record = FileRecord(manifest, "source", Phase.EXCHANGING, held_back=False, owners=())
    ledger = Ledger(path)
    ledger.save_file(record)
    ledger.close()
    assert Ledger(path).load() == ([record], [])


def test_last_record_wins(path: Path) -> None:
    first, other = record_of("first"), record_of("other")
    last = replace(first, phase=Phase.EXCHANGING, held_back=False, owners=("c", "b", "a"), source="another")
    ledger = Ledger(path)
    for file in (first, other, last):
        ledger.save_file(file)
    ledger.close()
    assert Ledger(path).load() == ([last, other], [])


def test_removed_file_is_deleted(path: Path) -> None:
    ledger = Ledger(path)
    for name in ("kept", "removed"):
        ledger.save_file(record_of(name))
    ledger.remove_file(record_of("removed").file_id)
    ledger.remove_file(bytes(32))
    ledger.close()
    assert Ledger(path).load() == ([record_of("kept")], [])


def test_saved_record_is_in_the_database_at_once(path: Path, tmp_path: Path) -> None:
    """A copy of the files on the disk is the ledger of a server that was killed at that moment."""
    ledger = Ledger(path)
    ledger.save_file(record_of("f"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in tmp_path.glob("server.db*"):
        (copy / part.name).write_bytes(part.read_bytes())
    ledger.close()
    assert Ledger(copy / "server.db").load() == ([record_of("f")], [])


def test_saved_record_is_not_only_in_the_log(path: Path, tmp_path: Path) -> None:
    ledger = Ledger(path)
    ledger.save_file(record_of("f"))
    (tmp_path / "copy.db").write_bytes(path.read_bytes())
    ledger.close()
    assert Ledger(tmp_path / "copy.db").load() == ([record_of("f")], [])


def test_second_server_is_refused(path: Path) -> None:
    ledger = Ledger(path)
    with pytest.raises(StorageError, match=r"locked.*--state-dir"):
        Ledger(path)
    ledger.close()
    Ledger(path)


def test_other_file_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"the data of another program, which must not be lost" * 100)
    with pytest.raises(StorageError, match="move it away"):
        Ledger(path)
    assert path.read_bytes().startswith(b"the data of another program")


def test_other_version_is_refused_and_left_alone(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StorageError, match="another version"):
        Ledger(path)


def test_bad_record_is_skipped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(path)
    for name in ("good", "bad"):
        ledger.save_file(record_of(name))
    ledger.close()
    with sqlite3.connect(path) as database:
        bad = record_of("bad").file_id
        database.execute("UPDATE files SET manifest = substr(manifest, 1, 40) WHERE file_id = ?", (bad,))
    database.close()
    assert Ledger(path).load() == ([record_of("good")], [])
    assert "skipped a file in" in caplog.text


def test_failing_disk_is_logged_and_survived(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(path)
    ledger.close()
    ledger.save_file(record_of("f"))
    ledger.add_client("a")
    assert caplog.text.count("a restarted server will not know this") == 2


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_new_state_folder_is_private(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "state"
    with umask_of(umask):
        prepare_folder(folder)
        ledger = Ledger(folder / "server-7070.db")
        ledger.save_file(record_of("a"))
    assert {path.name: mode_of(path) for path in (folder, *folder.iterdir())} == {
        "state": 0o700,
        "server-7070.db": 0o600,
        "server-7070.db-wal": 0o600,
    }
    ledger.close()


def test_existing_state_folder_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "server-7070.db"
    ledger = Ledger(path)
    ledger.save_file(record_of("a"))
    for each in tmp_path.iterdir():
        each.chmod(0o644)
    killed = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    ledger.close()
    for name, data in killed.items():
        (tmp_path / name).write_bytes(data)
    prepare_folder(tmp_path)
    ledger = Ledger(path)
    assert ledger.load()[0] == [record_of("a")]
    assert mode_of(tmp_path) == 0o700
    assert {mode_of(each) for each in tmp_path.iterdir()} == {0o600}
    ledger.close()


@pytest.mark.parametrize(("mode", "other"), [(0o755, "notes.txt"), (0o1777, None)])
def test_folder_with_other_files_keeps_its_mode(tmp_path: Path, mode: int, other: str | None) -> None:
    if other is not None:
        (tmp_path / other).touch(0o644)
    tmp_path.chmod(mode)
    prepare_folder(tmp_path)
    ledger = Ledger(tmp_path / "server-7070.db")
    assert mode_of(tmp_path) == mode
    assert mode_of(tmp_path / "server-7070.db") == 0o600
    ledger.close()


def test_link_in_place_of_a_ledger_changes_no_mode(tmp_path: Path) -> None:
    target = tmp_path / "somebody's"
    target.touch(0o644)
    (tmp_path / "server.db").symlink_to(target)
    Ledger(tmp_path / "server.db").close()
    assert mode_of(target) == 0o644
