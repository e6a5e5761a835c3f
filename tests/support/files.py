"""Files to distribute, and the comparison of their copies."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

_PIECE_BYTES = 64 * 1024 * 1024


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def random_file(path: Path, size_bytes: int, seed: int = 0) -> Path:
    """Writes a file of bytes that follow from its size and the seed; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = Random(f"{size_bytes} {seed}")
    with path.open("wb") as file:
        for start in range(0, size_bytes, _PIECE_BYTES):
            file.write(random.randbytes(min(_PIECE_BYTES, size_bytes - start)))
    return path


def visible_files(folder: Path) -> list[Path]:
    """Every file below a folder that a user sees: none in hidden folders. In order of their paths."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
    )
