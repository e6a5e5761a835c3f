"""The boundary around each file of a client: what goes wrong inside it is that file's, and never the client's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pspd.errors import PspError, StoreFailed
from pspd.store.filesystem.failures import storage_error
from pspd.text.plain import plain_text

log = logging.getLogger(__name__)


class Boundary:
    """IoBudget whatever is raised while a client deals with one file into a reason to decline that file.

    Args:
        name: the client's name.
        require_usable: raises ``StoreFailed`` if the store as a whole does not work.
        store_failed: told when that is so; the client ends.
    """

    def __init__(self, name: str, require_usable: Callable[[], None], store_failed: Callable[[PspError], None]) -> None:
        self._name = name
        self._require_usable = require_usable
        self._store_failed = store_failed

    def check_store(self) -> bool:
        """Has the client end if the store as a whole has failed. Returns whether it works."""
        try:
            self._require_usable()
        except StoreFailed as failure:
            self._store_failed(failure)
            return False
        return True

    def contain(self, action: str, what: str, error: Exception, known_reason: str = "") -> str:
        """Logs an error that concerns one file, and has the client end if the store as a whole has failed.

        Args:
            action: what was tried, such as "take".
            what: the file's name.
            error: what came of it.
            known_reason: the reason that was logged before; the same one is not logged again.

        Returns:
            The reason to decline the file, in one line.
        """
        if isinstance(error, OSError):
            error = storage_error(action, Path(str(error.filename or what)), error)
        reason = _reason(error)
        if reason != known_reason:
            log.error("%s: cannot %s %s: %s", self._name, action, what, reason)
            log.debug("%s: cannot %s %s: where:", self._name, action, what, exc_info=error)
        if isinstance(error, StoreFailed):
            self._store_failed(error)
        else:
            self.check_store()
        return reason


def _reason(error: Exception) -> str:
    text = str(error)
    if not isinstance(error, PspError):
        text = f"{type(error).__name__}: {text}: this is a bug; PSPD_LOG=DEBUG shows where"
    return plain_text(" ".join(text.split()))
