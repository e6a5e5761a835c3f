"""When a seeded file still needs its source."""

from __future__ import annotations

import pytest

from pspd.core.model.terms import SAFE_HOLDERS, Terms, source_is_needed


@pytest.mark.parametrize(
    ("stays", "divided_here", "is_complete", "holders", "needed"),
    [
        (True, True, False, SAFE_HOLDERS - 1, True),
        (True, True, False, SAFE_HOLDERS, False),
        (True, True, True, 1, False),
        (False, True, False, 0, False),
        (False, False, False, 0, True),
        (False, False, False, 1, False),
        (False, False, True, 0, False),
    ],
)
def test_source_is_needed_until_chunks_are_safe(
    stays: bool, divided_here: bool, is_complete: bool, holders: int, needed: bool
) -> None:
    assert (
        source_is_needed(
            Terms(source_stays=stays), divided_here=divided_here, is_complete=is_complete, min_holder_count=holders
        )
        is needed
    )
