"""Batches, which are rare in a small network, made frequent."""

from __future__ import annotations

import pytest

from pspd.core.model.parameters import MILLISECOND_NS
from pspd.core.server import deliveries, fetching
from pspd.sim.scenario import run_seed


@pytest.mark.parametrize(
    ("seed", "handing_out_ns", "broadcast_ns"),
    [
        # Chunks in a batch were fetched a second time for a client in the wait queue.
        (77, 30 * MILLISECOND_NS, 0),
        *((seed, 2 * MILLISECOND_NS, 0) for seed in range(4)),
        *((seed, 0, 10 * MILLISECOND_NS) for seed in range(4, 8)),
        *((seed, MILLISECOND_NS, MILLISECOND_NS) for seed in range(8, 12)),
    ],
)
def test_long_batches_break_no_rule(
    monkeypatch: pytest.MonkeyPatch, seed: int, handing_out_ns: int, broadcast_ns: int
) -> None:
    monkeypatch.setattr(deliveries, "HANDING_OUT_NS_PER_DELIVERY", handing_out_ns)
    monkeypatch.setattr(fetching, "BROADCAST_NS_PER_DATAGRAM", broadcast_ns)
    outcome = run_seed(seed)
    assert outcome.kind == "ok", outcome.text
