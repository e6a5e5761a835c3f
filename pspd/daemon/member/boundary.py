"""An error boundary around each file of a client: an error with one file does not end the client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pspd.errors import PspError, StoreFailed
from pspd.store.filesystem.failures import storage_error
from pspd.text.plain import plain_text

log = logging.getLogger(__name__)


class Boundary:
    """Turns every error with one file into a reason to decline the file.

    Args:
        name: the client's name.
        require_usable: raises ``StoreFailed`` if the store as a whole does not work.
        store_failed: called then; the client ends.
    """

    def __init__(self, name: str, require_usable: Callable[[], None], store_failed: Callable[[PspError], None]) -> None:
        self._name = name
        self._require_usable = require_usable
        self._store_failed = store_failed

    def check_store(self) -> bool:
        """Return whether the store works; if not, end the client."""
        try:
            self._require_usable()
        except StoreFailed as failure:
            self._store_failed(failure)
            return False
        return True

    def contain(self, action: str, what: str, error: Exception, known_reason: str = "") -> str:
        """Log an error with one file, and end the client if the store as a whole has failed.

        Args:
            action: what was tried, such as "take".
            what: the file's name.
            error: the error.
            known_reason: the reason that was logged last; the same one is not logged again.

        Returns:
            The reason to decline the file, in one line.
        """
        if isinstance(error, OSError):
            error = storage_error(action, Path(str(error.filename or what)), error)
        reason = _reason(error)
        if reason != known_reason:
            log.error("%s: cannot %s %s: %s", self._name, action, what, reason)
            log.debug("%s: cannot %s %s: traceback:", self._name, action, what, exc_info=error)
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
