"""Logs the files that a client receives: the beginning, the progress and the rate of each reception."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pspd.core.client.download import Download, Stage
from pspd.core.model.manifest import CHUNK_BYTES, FileId
from pspd.text.plain import plain_text
from pspd.text.sizes import size_text

STEP_PERCENT = 10
"""A reception is logged at its beginning and when it reaches a multiple of this, in percent: at most 10 lines."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reception:
    """The reception of one file.

    Attributes:
        chunks_before: the number of held chunks at the beginning.
        step: the progress at the last log line, in whole units of ``STEP_PERCENT``.
        began_at: the time of the beginning, on the monotonic clock.
    """

    chunks_before: int
    step: int
    began_at: float = field(default_factory=time.monotonic)


class ReceptionLog:
    """Logs the files that one client receives.

    Args:
        name: the client's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._receptions: dict[FileId, _Reception] = {}

    def update(self, downloads: Iterable[Download]) -> None:
        """Log each new download, and each that has reached a further step; skip whole and declined files."""
        for download in downloads:
            manifest, held = download.manifest, download.verified.chunk_count
            if download.stage in (Stage.COMPLETE, Stage.DECLINED) or held == manifest.chunk_count:
                continue
            step = 100 * held // manifest.chunk_count // STEP_PERCENT
            reception = self._receptions.get(download.file_id)
            if reception is None:
                self._receptions[download.file_id] = _Reception(held, step)
                rest = f", has {size_text(held * CHUNK_BYTES)} of it" if held else ""
                size = size_text(manifest.size_bytes)
                log.info("%s: receives %s (%s)%s", self._name, plain_text(manifest.name), size, rest)
            elif step > reception.step:
                reception.step = step
                self._log_step(download, held, reception)

    def end(self, file_id: FileId) -> str:
        """Forget a file; return how long its reception took, as in `` after 3.2 s``, or an empty text if unknown."""
        reception = self._receptions.pop(file_id, None)
        return f" after {time.monotonic() - reception.began_at:.1f} s" if reception is not None else ""

    def _log_step(self, download: Download, held: int, reception: _Reception) -> None:
        seconds = time.monotonic() - reception.began_at
        rate = size_text((held - reception.chunks_before) * CHUNK_BYTES / seconds) if seconds else "-"
        manifest, has = download.manifest, size_text(held * CHUNK_BYTES)
        name, size = plain_text(manifest.name), size_text(manifest.size_bytes)
        percent = 100 * held // manifest.chunk_count
        log.info("%s: has %d %% of %s (%s of %s), %s/s", self._name, percent, name, has, size, rate)
