"""Batches, which are rare in a small network, made frequent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.model.tuning import SERVER_TUNING
from pspd.sim.scenario import run_seed


@pytest.mark.parametrize(
    ("seed", "delivery_ns", "broadcast_ns"),
    [
        # Chunks in a batch were fetched a second time for a client in the wait queue.
        (77, 30 * MILLISECOND_NS, 0),
        *((seed, 2 * MILLISECOND_NS, 0) for seed in range(4)),
        *((seed, 0, 10 * MILLISECOND_NS) for seed in range(4, 8)),
        *((seed, MILLISECOND_NS, MILLISECOND_NS) for seed in range(8, 12)),
    ],
)
def test_long_batches_break_no_rule(seed: int, delivery_ns: int, broadcast_ns: int) -> None:
    tuning = replace(SERVER_TUNING, delivery_pacing_ns=delivery_ns, broadcast_pacing_ns=broadcast_ns)
    outcome = run_seed(seed, tuning=tuning)
    assert outcome.kind == "ok", outcome.text
