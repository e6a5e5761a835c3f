"""Counts and reports dropped inputs."""

from __future__ import annotations

from collections import Counter

from pspd.core.effects.shared import InputDropped
from pspd.core.server.work_set import WorkSet
from pspd.core.wire.header import DropReason


class Drops:
    """Every dropped input, by reason.

    Args:
        work: takes the effects.

    Attributes:
        counts: how many were dropped.
    """

    def __init__(self, work: WorkSet) -> None:
        self.counts: Counter[DropReason] = Counter()
        self._work = work

    def drop(self, reason: DropReason, origin: str) -> None:
        """Count and report an input that is dropped.

        Args:
            reason: why.
            origin: whom it came from.
        """
        self.counts[reason] += 1
        self._work.emit(InputDropped(reason, origin))
