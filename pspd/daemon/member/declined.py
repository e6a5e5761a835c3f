"""Records why a member declines a file, and when the member tries again to take it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pspd.core.model.manifest import Manifest
from pspd.errors import PspError, StoreFailed
from pspd.store.filesystem.failures import storage_error
from pspd.text.plain import plain_text

RETRY_SECONDS_MIN = 5.0
RETRY_SECONDS_MAX = 300.0
"""Bounds of the delay before a client tries again to take a file, because there may be more room by then. The delay
doubles, because an attempt may have to read a large existing file."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErrorBoundary:
    """Limits the effect of an error to one file: the error becomes the reason to decline the file.

    Attributes:
        name: the member's name.
        require_usable: raises ``StoreFailed`` if the store as a whole does not work.
        on_store_failure: ends the member; called with the error if the store as a whole has failed.
    """

    name: str
    require_usable: Callable[[], None]
    on_store_failure: Callable[[PspError], None]

    def check_store(self) -> bool:
        """Return whether the store works; if not, end the member."""
        try:
            self.require_usable()
        except StoreFailed as failure:
            self.on_store_failure(failure)
            return False
        return True

    def contain(self, action: str, title: str, error: Exception, known_reason: str = "") -> str:
        """Log an error about one file, and end the member if the store as a whole has failed; return the reason.

        Args:
            action: the operation that failed, such as "take".
            title: the file's name.
            error: the error.
            known_reason: the last reason that was logged for the file. The same reason is not logged again.

        Returns:
            The reason to decline the file, in one line.
        """
        if isinstance(error, OSError):
            error = storage_error(action, Path(str(error.filename or title)), error)
        text = str(error)
        if not isinstance(error, PspError):
            text = f"{type(error).__name__}: {text}: this is a bug; PSPD_LOG=DEBUG shows where"
        reason = plain_text(" ".join(text.split()))
        if reason != known_reason:
            log.error("%s: cannot %s %s: %s", self.name, action, title, reason)
            log.debug("%s: cannot %s %s: traceback:", self.name, action, title, exc_info=error)
        if isinstance(error, StoreFailed):
            self.on_store_failure(error)
        else:
            self.check_store()
        return reason


@dataclass(slots=True)
class DeclinedFile:
    """A file that a member has declined.

    A file that a user removed is tried again only after the user has put it back: the client must not restore it. A
    manifest with contradictory digests is never tried again, but another manifest of the same file is tried.

    Attributes:
        manifest: the file's manifest.
        division: the number of the division that the member declines.
        reason: why the member declined the file, in one line.
        exchange_started: whether the file's exchange has started.
        removed_path: the path from which a user removed the file; None if no user removed it.
        is_final: whether this manifest is never tried again.
        delay: the delay before the next attempt, in seconds.
        retry_at: the time of the next attempt, on the loop's clock.
    """

    manifest: Manifest
    division: int
    reason: str
    exchange_started: bool
    removed_path: Path | None = None
    is_final: bool = False
    delay: float = field(init=False, default=0.0)
    retry_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Schedule the next attempt after ``RETRY_SECONDS_MIN``."""
        self.back_off(RETRY_SECONDS_MIN / 2)

    def rules_out(self, manifest: Manifest) -> bool:
        """Return whether an attempt with this manifest is pointless."""
        is_missing = self.removed_path is not None and not os.path.lexists(self.removed_path)
        return is_missing or (self.is_final and self.manifest == manifest)

    def is_retry_due(self, now: float) -> bool:
        """Return whether to try again at time `now`, on the loop's clock."""
        return self.retry_at <= now and not self.rules_out(self.manifest)

    def back_off(self, delay: float) -> None:
        """Schedule the next attempt after twice `delay`, at most ``RETRY_SECONDS_MAX``. The delay never decreases."""
        self.delay = max(self.delay, min(2 * delay, RETRY_SECONDS_MAX))
        self.retry_at = asyncio.get_running_loop().time() + self.delay
