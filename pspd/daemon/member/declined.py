"""A file that a member has declined, and when it tries again to take it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pspd.core.model.manifest import Manifest

RETRY_SECONDS_MIN = 5.0
RETRY_SECONDS_MAX = 300.0
"""Bounds of the delay before a client tries again to take a file: somebody may have made room. The delay doubles, as
looking at a large file that is in the way takes time."""


class DeclinedFile:
    """A file that a member has declined.

    A file that somebody removed is tried again only when it is back: the client does not restore it against their
    will. A manifest with contradictory digests is never tried again; the same file with other digests is.

    Attributes:
        manifest: its manifest.
        division: the division of the file among clients that was declined.
        reason: why, in one line.
        started: whether its exchange has started.
        removed: the path from which somebody removed it; None if nobody did.
        is_final: whether it is never tried again with this manifest.
        delay: the seconds before the next attempt.
        retry_at: the time of the next attempt, on the loop's clock.
    """

    __slots__ = ("delay", "division", "is_final", "manifest", "reason", "removed", "retry_at", "started")

    def __init__(
        self,
        manifest: Manifest,
        division: int,
        reason: str,
        started: bool,
        removed: Path | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        """Decline a file; see the attributes of the class."""
        self.is_final = is_final
        self.manifest = manifest
        self.division = division
        self.reason = reason
        self.started = started
        self.removed = removed
        self.delay = RETRY_SECONDS_MIN
        self.retry_at = asyncio.get_running_loop().time() + self.delay

    @property
    def is_missing(self) -> bool:
        """Whether somebody has removed the file, and it is not back."""
        return self.removed is not None and not os.path.lexists(self.removed)

    def rules_out(self, manifest: Manifest) -> bool:
        """Return whether an attempt with this manifest is pointless."""
        return self.is_missing or (self.is_final and self.manifest == manifest)

    def take_retry(self, now: float) -> bool:
        """Return whether to try again at time `now`; if so, schedule the attempt after it."""
        if self.retry_at > now or self.rules_out(self.manifest):
            return False
        self.back_off(self.delay)
        return True

    def back_off(self, delay: float) -> None:
        """Schedule the next attempt after a delay longer than `delay`, which did not help; 0 for no attempt so far."""
        self.delay = max(self.delay, min(2 * delay, RETRY_SECONDS_MAX))
        self.retry_at = asyncio.get_running_loop().time() + self.delay

    def again(self, manifest: Manifest, division: int, started: bool) -> DeclinedFile:
        """Return the same refusal for a new assignment of the file.

        Args:
            manifest: the manifest that was assigned now.
            division: its division.
            started: whether the exchange has started.
        """
        return DeclinedFile(manifest, division, self.reason, started, self.removed, is_final=self.is_final)
