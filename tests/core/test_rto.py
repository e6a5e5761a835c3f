"""Retransmission timeouts: the numbers of RFC 6298, and the deviations from it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.parameters import MILLISECOND_NS, SECOND_NS
from pspd.core.timing.rtt import LINEAR_TIMEOUTS, RTO_INITIAL_NS, RTO_MAX_NS, RTO_MIN_NS, RttEstimator

NO_JITTER = type("NoJitter", (Random,), {"random": lambda self: 0.0})()
MOST_JITTER = type("MostJitter", (Random,), {"random": lambda self: 1.0})()


def estimator_of(*samples_ms: float) -> RttEstimator:
    rtt = RttEstimator()
    for sample_ms in samples_ms:
        rtt.sample(int(sample_ms * MILLISECOND_NS))
    return rtt


class TestMaximum:
    def test_one_long_round_trip_does_not_exceed_the_maximum(self) -> None:
        rtt = RttEstimator()
        rtt.sample(300 * SECOND_NS)
        assert rtt.srtt_ns == 300 * SECOND_NS
        assert rtt.rto_ns == RTO_MAX_NS
        for _ in range(2 * LINEAR_TIMEOUTS):
            rtt.note_timeout()
        assert rtt.timeout_ns(NO_JITTER) == RTO_MAX_NS


class TestEstimate:
    def test_timeout_is_initial_without_samples(self) -> None:
        assert RttEstimator().rto_ns == RTO_INITIAL_NS

    def test_first_sample_sets_srtt_and_half_the_variation(self) -> None:
        rtt = estimator_of(100)
        assert rtt.srtt_ns == 100 * MILLISECOND_NS
        assert rtt.rto_ns == (100 + 4 * 50) * MILLISECOND_NS  # section 2.2

    def test_later_samples_weigh_an_eighth_and_a_quarter(self) -> None:
        rtt = estimator_of(100, 200)
        # Section 2.3: RTTVAR = 3/4 * 50 + 1/4 * |100 - 200| = 62.5; SRTT = 7/8 * 100 + 1/8 * 200 = 112.5.
        assert rtt.srtt_ns == 112.5 * MILLISECOND_NS
        assert rtt.rto_ns == (112.5 + 4 * 62.5) * MILLISECOND_NS

    def test_constant_round_trip_leaves_the_clock_granularity(self) -> None:
        rtt = estimator_of(*[200] * 200)
        assert rtt.rto_ns == pytest.approx(201 * MILLISECOND_NS, abs=1000)

    def test_timeout_is_at_least_the_given_minimum(self) -> None:
        assert estimator_of(0.1).rto_ns == RTO_MIN_NS
        slow = RttEstimator(300 * MILLISECOND_NS)
        slow.sample(1)
        assert slow.rto_ns == 300 * MILLISECOND_NS

    def test_timeout_is_at_most_the_maximum(self) -> None:
        assert estimator_of(60_000).rto_ns == RTO_MAX_NS

    def test_shortest_round_trip_is_kept(self) -> None:
        assert estimator_of(7, 3, 9).min_ns == 3 * MILLISECOND_NS

    def test_round_trip_of_zero_is_a_sample(self) -> None:
        rtt = estimator_of(0)
        assert (rtt.srtt_ns, rtt.rto_ns) == (1, RTO_MIN_NS)

    @given(st.lists(st.integers(0, 100 * SECOND_NS), min_size=1))
    def test_timeout_and_mean_stay_within_their_bounds(self, samples: list[int]) -> None:
        rtt = RttEstimator()
        for sample in samples:
            rtt.sample(sample)
        assert RTO_MIN_NS <= rtt.rto_ns <= RTO_MAX_NS
        assert max(1, min(samples) - 8) <= max(1, rtt.srtt_ns) <= max(1, *samples)
        assert rtt.min_ns == min(samples)


class TestBackoff:
    def test_timeout_doubles_after_the_first_timeouts(self) -> None:
        rtt = estimator_of(20)
        base_ns = rtt.rto_ns
        waits = []
        for _ in range(LINEAR_TIMEOUTS + 4):
            waits.append(rtt.timeout_ns(NO_JITTER))
            rtt.note_timeout()
        assert waits == [base_ns] * (LINEAR_TIMEOUTS + 1) + [2 * base_ns, 4 * base_ns, 8 * base_ns]

    def test_backoff_ends_at_the_maximum(self) -> None:
        rtt = estimator_of(20)
        for _ in range(1000):
            rtt.note_timeout()
        assert rtt.timeout_ns(NO_JITTER) == RTO_MAX_NS

    def test_answer_ends_the_backoff(self) -> None:
        rtt = estimator_of(20)
        for _ in range(10):
            rtt.note_timeout()
        rtt.note_answer()
        assert rtt.timeout_ns(NO_JITTER) == rtt.rto_ns

    def test_timeouts_counted_by_the_caller_are_used(self) -> None:
        rtt = estimator_of(20)
        rtt.note_timeout()
        waits = [rtt.timeout_ns(NO_JITTER, count) for count in (-1, 0, LINEAR_TIMEOUTS, LINEAR_TIMEOUTS + 1)]
        assert waits == [rtt.rto_ns] * 3 + [2 * rtt.rto_ns]

    def test_jitter_adds_up_to_a_quarter(self) -> None:
        rtt = estimator_of(100)
        assert rtt.timeout_ns(MOST_JITTER) == rtt.rto_ns * 5 // 4
        waits = [rtt.timeout_ns(Random(seed)) for seed in range(20)]
        assert len(set(waits)) == 20
        assert all(rtt.rto_ns <= wait <= rtt.rto_ns * 5 // 4 for wait in waits)
