"""Goes through a folder, however deep it is: ``os.walk`` of Python 3.11 fails at some thousand levels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    place: str | Path, onerror: Callable[[OSError], None] = lambda _: None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every folder below a place and the place itself, each before what is in it.

    Args:
        place: where to begin.
        onerror: told of each folder that cannot be read; it is left out then.

    Yields:
        A folder's path, the names of the folders in it, and the names of everything else, links to folders among them.
    """
    ahead = [os.fspath(place)]
    while ahead:
        folder = ahead.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        except OSError as error:
            onerror(error)
            continue
        yield folder, folders, others
        ahead.extend(os.path.join(folder, name) for name in folders)


def fail(error: OSError) -> None:
    """As ``onerror``: what cannot be read ends the walk."""
    raise error
