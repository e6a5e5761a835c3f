"""The check that a client's disk is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

import pspd.store.filesystem.mounts
from pspd.errors import BadArgument, StorageError, WrongState
from pspd.store.filesystem.mounts import require_mount


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with mount points ``disk`` and ``my disk``, and an automounter, in a fake list of mounts."""
    told = tmp_path / "mountinfo"
    told.write_text(
        "22 1 0:2 / / rw shared:1 - overlay overlay rw\n"
        f"23 22 8:1 / {tmp_path}/disk rw,noatime - ext4 /dev/sda1 rw\n"
        f"24 22 8:1 /sub {tmp_path}/my\\040disk rw shared:7 master:2 - ext4 /dev/sda1 rw\n"
        f"25 22 0:9 / {tmp_path}/auto rw - autofs systemd-1 rw\n"
        f"26 22 0:9 / {tmp_path}/odd\u2028\rname rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr(pspd.store.filesystem.mounts, "_MOUNTS", told)
    for name in ("disk", "my disk", "auto", "plain"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("disk/files")
    (tmp_path / "disk" / "out").symlink_to("../plain")
    return tmp_path


@pytest.mark.parametrize("name", ["disk", "disk/files", "disk/a/b/c", "my disk/files", "link", "plain/../disk"])
def test_folder_on_a_disk_is_accepted(mounted: Path, name: str) -> None:
    require_mount(mounted / name)
    assert not (mounted / "disk" / "files").exists()


@pytest.mark.parametrize("name", ["plain", "plain/files", "auto/files", "diskette", "disk/out/files", "disk/.."])
def test_folder_on_no_disk_is_refused(mounted: Path, name: str) -> None:
    with pytest.raises(WrongState, match=rf"{name} is not on a mounted disk: .* other than / is a mount point: mount"):
        require_mount(mounted / name)


def test_folder_on_the_named_disk_is_accepted(mounted: Path) -> None:
    for name in ("disk", "disk/files", "link"):
        require_mount(mounted / name, mounted / "disk")
    with pytest.raises(WrongState, match=r"disk/files is not a mount point: mount the disk first"):
        require_mount(mounted / "disk" / "files", mounted / "disk" / "files")
    with pytest.raises(BadArgument, match=r"plain is not below .*disk: name a mount point above it"):
        require_mount(mounted / "plain", mounted / "disk")


def test_relative_folder_is_below_the_current_one(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mounted / "disk")
    require_mount(Path("files"), Path())
    monkeypatch.chdir(mounted / "plain")
    with pytest.raises(WrongState):
        require_mount(Path("files"))


def test_unreadable_mount_list_raises(mounted: Path) -> None:
    (mounted / "mountinfo").unlink()
    with pytest.raises(StorageError, match=r"cannot read .*mountinfo"):
        require_mount(mounted / "disk")


def test_proc_is_a_mount_point() -> None:
    require_mount(Path("/proc/self/fd"))
    require_mount(Path("/proc/self/fd"), Path("/proc"))
    with pytest.raises(WrongState):
        require_mount(Path("/"))
