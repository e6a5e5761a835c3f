"""Rates of files, and their remaining time."""

from __future__ import annotations

from pspd.core.model.file_record import Phase
from pspd.core.model.parameters import SECOND_NS
from pspd.core.server.shared_file import SharedFile
from pspd.daemon.server.status import SAMPLES_MAX, DeliveryRates, seconds_left
from tests.core.bench import Bench

CHUNKS = 1000


def exchanging_file() -> SharedFile:
    """Return a file of which each of two clients holds a half."""
    file = SharedFile(Bench().manifest("file", CHUNKS), "source")
    file.phase = Phase.EXCHANGING
    file.availability.add_arrived("a", [(0, 512)])
    file.availability.add_arrived("b", [(512, CHUNKS)])
    return file


def test_rate_counts_deliveries_in_the_window() -> None:
    file, rates = exchanging_file(), DeliveryRates()
    rates.sample([file], 0)
    assert rates.rate(file, 0) is None
    for second in range(1, 2 * SAMPLES_MAX):
        file.traffic.delivered_bytes += 4096
        rates.sample([file], second * SECOND_NS)
    assert rates.rate(file, (2 * SAMPLES_MAX - 1) * SECOND_NS) == 4096


def test_rate_falls_to_zero_without_deliveries() -> None:
    file, rates = exchanging_file(), DeliveryRates()
    rates.sample([file], 0)
    file.traffic.delivered_bytes = 1 << 20
    for second in range(1, SAMPLES_MAX + 1):
        rates.sample([file], second * SECOND_NS)
    rate = rates.rate(file, (SAMPLES_MAX + 1) * SECOND_NS)
    assert rate == 0
    assert seconds_left(file, ["a", "b"], rate) is None


def test_each_phase_has_its_own_rate() -> None:
    file, rates = exchanging_file(), DeliveryRates()
    file.phase = Phase.SEEDING
    rates.sample([file], 0)
    file.traffic.delivered_bytes = 1 << 30
    file.phase = Phase.EXCHANGING
    rates.sample([file], SECOND_NS)
    assert rates.rate(file, SECOND_NS) is None
    file.traffic.delivered_bytes += 1024
    assert rates.rate(file, 2 * SECOND_NS) == 1024


def test_complete_file_has_no_rate() -> None:
    file, rates = exchanging_file(), DeliveryRates()
    rates.sample([file], 0)
    file.is_complete = True
    assert rates.rate(file, SECOND_NS) is None
    rates.sample([file], SECOND_NS)
    file.is_complete = False
    assert rates.rate(file, 2 * SECOND_NS) is None


def test_seconds_left_count_missing_chunks_at_the_rate() -> None:
    file = exchanging_file()
    assert seconds_left(file, ["a", "b"], 100 * 1024) == (CHUNKS - 512 + 512) / 100
    assert seconds_left(file, ["a", "b"], None) is None
    file.is_stalled = True
    assert seconds_left(file, ["a", "b"], 1024) is None


def test_seconds_left_count_shares_while_seeding() -> None:
    file = SharedFile(Bench().manifest("file", CHUNKS), "source")
    file.divide(Bench().manifest("file", CHUNKS, 2), "source", ["a", "b"])
    assert seconds_left(file, ["a", "b"], 100 * 1024) == CHUNKS / 100
    file.availability.add_arrived("a", [(0, CHUNKS // 2)])
    assert seconds_left(file, ["a", "b"], 100 * 1024) == CHUNKS / 2 / 100
