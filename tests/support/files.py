"""Create files to distribute, and compare their copies."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

_WRITE_BYTES = 64 * 1024 * 1024


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def random_file(path: Path, size_bytes: int, seed: int = 0) -> Path:
    """Write a file of random bytes; return its path.

    Args:
        path: the path of the file; missing folders are created.
        size_bytes: the size.
        seed: determines the bytes, together with the size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    random = Random(f"{size_bytes} {seed}")
    with path.open("wb") as file:
        for start in range(0, size_bytes, _WRITE_BYTES):
            file.write(random.randbytes(min(_WRITE_BYTES, size_bytes - start)))
    return path


def visible_files(folder: Path) -> list[Path]:
    """Return the files below a folder that are not in hidden folders, sorted by path."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
    )
