"""What a forecast says of networks whose figures can be had by hand."""

from __future__ import annotations

import pytest

from pspd.core.model.parameters import CLASSIC, FAST
from pspd.sim.forecast import Plan, forecast, ideal_seconds
from pspd.sim.hosts import Access

MBIT = 125_000
KIB = 1024


def test_where_the_servers_link_is_the_narrowest_the_exchange_takes_what_it_must_carry() -> None:
    access = Access(up_rate=200 * MBIT, down_rate=200 * MBIT)
    plan = Plan(8, 16 * KIB * KIB, FAST, 1024, access, server_rate=200 * MBIT, source=access)
    told = forecast(plan)
    assert ideal_seconds(plan) == pytest.approx(7 * 16 * KIB * KIB / (200 * MBIT), rel=0.01)
    assert told.exchange_seconds == pytest.approx(ideal_seconds(plan), rel=0.08)
    assert told.delivered_bytes == 7 * 16 * KIB * KIB
    assert told.server_sent_bytes >= told.delivered_bytes + 16 * KIB * KIB
    assert told.first_client_seconds <= told.last_client_seconds <= told.exchange_seconds + 0.1


@pytest.mark.parametrize("parameters", [CLASSIC, FAST], ids=lambda parameters: parameters.profile)
@pytest.mark.parametrize("size_bytes", [0, 1, 100_000])
def test_every_size_and_profile_comes_to_its_end(parameters, size_bytes: int) -> None:  # type: ignore[no-untyped-def]
    parts: list[float] = []
    told = forecast(Plan(5, size_bytes, parameters, None), parts.append)
    assert told.delivered_bytes == 4 * size_bytes
    assert parts[-1] == 1.0


def test_the_same_plan_gives_the_same_forecast() -> None:
    plan = Plan(5, 300_000, FAST, 64)
    assert forecast(plan) == forecast(plan)
