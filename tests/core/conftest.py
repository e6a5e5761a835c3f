"""What tests of the machines share."""

from __future__ import annotations

import pytest

from pspd.core.server import fetching


@pytest.fixture
def frames_of_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are a quarter of the cache, however small it is."""
    monkeypatch.setattr(fetching, "FRAME_CHUNKS_SMALL", 1)
