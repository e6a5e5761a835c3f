"""``pspctl simulate``: a forecast, as a table and as JSON."""

from __future__ import annotations

import json

import pytest

from tests.pspctl.conftest import Pspctl


def test_table_shows_forecast_beside_ideal(pspctl: Pspctl) -> None:
    result = pspctl("simulate", "--clients", "4", "--size", "1MiB", "--server-mbit", "100")
    assert result.exit_code == 0
    assert "4 clients, 1.0 MiB, profile fast" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[2:6]] == ["EXCHANGE", "time", "first", "last"]


def test_json_has_forecast(pspctl: Pspctl) -> None:
    arguments = ("--clients", "3", "--size", "100KiB", "--profile", "classic", "--cache", "auto", "--loss", "0.1")
    result = pspctl("simulate", *arguments, "--order", "random", "-o", "json")
    view = json.loads(result.stdout)
    assert (view["clients"], view["size_bytes"], view["profile"], view["order"]) == (3, 102_400, "classic", "random")
    assert view["cache_bytes"] == 3 * 1024
    assert view["forecast"]["delivered_bytes"] == 2 * 102_400


def test_single_client_exchanges_nothing(pspctl: Pspctl) -> None:
    result = pspctl("simulate", "--clients", "1", "--size", "1MiB", "--server-mbit", "0", "-o", "json")
    view = json.loads(result.stdout)
    assert (view["ideal_exchange_seconds"], view["forecast"]["contributed_bytes"]) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--size", "4x"),
        ("--size", "2TiB"),
        ("--size", "1MiB", "--cache", "1B"),
        ("--size", "1", "--loss", "2"),
        ("--size", "1", "--loss", "nan"),
        ("--size", "1", "--delay", "inf"),
        ("--size", "1", "--server-mbit", "1e-9"),
        ("--size", "1", "--client-mbit", "-1"),
    ],
)
def test_invalid_arguments_are_refused(pspctl: Pspctl, wrong: tuple[str, ...]) -> None:
    result = pspctl("simulate", "--clients", "3", *wrong)
    assert result.exit_code == 2
    assert result.stderr.startswith("pspctl: error: ")
