"""Stores the servers that the user has named, in a JSON file."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pspd.errors import StorageError
from pspd.host.environment import no_home_error, user_folder

FOLDER_VARIABLE = "PSPCTL_CONFIG_DIR"


@dataclass(slots=True)
class Contexts:
    """Server addresses by name, and the name of the server to which commands talk by default."""

    current: str | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def current_address(self) -> str | None:
        """The address of the current context; None if there is no current context, or no address for it."""
        return None if self.current is None else self.addresses.get(self.current)


def contexts_path() -> Path | None:
    """Return the path of the contexts file; None if `FOLDER_VARIABLE` is not set and the user has no home folder."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) if given else user_folder("config")
    return folder and folder / "contexts.json"


def load() -> Contexts:
    """Load the contexts; if there is no file, or no path for it, return an empty `Contexts`.

    Raises:
        StorageError: the file cannot be read, or does not hold contexts.
    """
    path = contexts_path()
    if path is None:
        return Contexts()
    try:
        document = json.loads(path.read_bytes())
        current, addresses = document["current"], document["contexts"]
        if not isinstance(current, str | None) or not all(isinstance(address, str) for address in addresses.values()):
            raise TypeError
        return Contexts(current, addresses)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise _file_error("read", path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path} does not hold contexts: repair or remove it") from error


def save(contexts: Contexts) -> None:
    """Write the contexts in one atomic step, so that a reader never finds a part of the file.

    Raises:
        StorageError: the file cannot be written, or the user has no home folder.
    """
    path = contexts_path()
    if path is None:
        raise no_home_error("config", FOLDER_VARIABLE)
    text = json.dumps({"current": contexts.current, "contexts": contexts.addresses}, indent=2) + "\n"
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".contexts-", delete=False) as file:
            os.fchmod(file.fileno(), 0o600)  # independent of the umask
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise _file_error("write", path, error) from error


def _file_error(action: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot {action} {path}: {error.strerror}: name another folder with {FOLDER_VARIABLE}")
