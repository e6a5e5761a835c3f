"""Forecasts of networks whose results can be computed by hand."""

from __future__ import annotations

import pytest

from pspd.core.model.parameters import CLASSIC, FAST
from pspd.sim.forecast import Plan, forecast, ideal_seconds
from pspd.sim.hosts import HostConditions

MBIT = 125_000
KIB = 1024


def test_exchange_time_follows_from_the_servers_link() -> None:
    conditions = HostConditions(up_rate=200 * MBIT, down_rate=200 * MBIT)
    plan = Plan(8, 16 * KIB * KIB, FAST, 1024, conditions, server_rate=200 * MBIT, source_conditions=conditions)
    found = forecast(plan)
    assert ideal_seconds(plan) == pytest.approx(7 * 16 * KIB * KIB / (200 * MBIT), rel=0.01)
    assert found.exchange_seconds == pytest.approx(ideal_seconds(plan), rel=0.08)
    assert found.delivered_bytes == 7 * 16 * KIB * KIB
    assert found.server_sent_bytes >= found.delivered_bytes + 16 * KIB * KIB
    assert found.first_client_seconds <= found.last_client_seconds <= found.exchange_seconds + 0.1


@pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=lambda parameters: parameters.profile)
@pytest.mark.parametrize("size_bytes", [0, 1, 100_000])
def test_every_size_and_profile_completes(parameters, size_bytes: int) -> None:  # type: ignore[no-untyped-def]
    progress: list[float] = []
    found = forecast(Plan(5, size_bytes, parameters, None), progress.append)
    assert found.delivered_bytes == 4 * size_bytes
    assert progress[-1] == 1.0


def test_same_plan_gives_the_same_forecast() -> None:
    plan = Plan(5, 300_000, FAST, 64)
    assert forecast(plan) == forecast(plan)
