"""The window follows the rate of the path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pspd.core.model.parameters import CLASSIC, MILLISECOND_NS, SECOND_NS
from pspd.core.timing.window import EPOCHS, QUEUE_TIME_NS, TIMEOUTS_BEFORE_SHRINKING, Window

RTT_NS = 10 * MILLISECOND_NS
STEP_NS = 20 * MILLISECOND_NS


def flow(window: Window, chunks_per_second: int, steps: int, now: int = 0) -> int:
    """Let chunks arrive at a rate; return the time of the last arrival."""
    for _ in range(steps):
        window.note_delivery(chunks_per_second * STEP_NS // SECOND_NS, RTT_NS, now)
        now += STEP_NS
    return now


class TestWindow:
    def test_window_begins_at_its_minimum(self) -> None:
        assert Window(16, 4096).chunks == 16

    def test_window_at_most_doubles_in_an_epoch(self) -> None:
        window = Window(16, 4096)
        sizes = []
        for step in range(5):
            window.note_delivery(10_000, RTT_NS, step * STEP_NS)
            sizes.append(window.chunks)
        assert sizes == [16, 32, 64, 128, 256]

    def test_window_converges_to_rate_times_delay(self) -> None:
        window = Window(16, 4096)
        flow(window, 10_000, 30)
        assert window.chunks == 10_000 * (RTT_NS + QUEUE_TIME_NS) // SECOND_NS

    def test_stall_shrinks_the_window_only_after_all_epochs(self) -> None:
        window = Window(16, 4096)
        now = flow(window, 10_000, 30)
        full = window.chunks
        now = flow(window, 100, EPOCHS - 1, now)
        assert window.chunks == full
        flow(window, 100, 3 * EPOCHS, now)
        assert window.chunks == 100 * (RTT_NS + QUEUE_TIME_NS) // SECOND_NS

    def test_rate_is_not_measured_within_a_round_trip(self) -> None:
        window = Window(16, 4096)
        for now in range(0, 9 * MILLISECOND_NS, MILLISECOND_NS):
            window.note_delivery(1000, RTT_NS, now)
        assert window.chunks == 16

    def test_window_grows_to_its_maximum(self) -> None:
        window = Window(16, 64)
        flow(window, 1_000_000, 30)
        assert window.chunks == 64

    def test_window_of_one_chunk_stays_one(self) -> None:
        window = Window(1, 1)
        flow(window, 1000, 30)
        window.note_timeout()
        assert window.chunks == 1

    def test_several_timeouts_in_a_row_halve_the_window(self) -> None:
        window = Window(16, 4096)
        flow(window, 10_000, 30)
        full = window.chunks
        for _ in range(TIMEOUTS_BEFORE_SHRINKING - 1):
            window.note_timeout()
        assert window.chunks == full
        window.note_timeout()
        assert window.chunks == full // 2

    def test_arrival_resets_the_count_of_timeouts(self) -> None:
        window = Window(16, 4096)
        now = flow(window, 10_000, 30)
        full = window.chunks
        for _ in range(5):
            window.note_timeout()
            window.note_timeout()
            window.note_delivery(1, RTT_NS, now)
        assert window.chunks == full

    def test_idle_time_is_excluded_from_the_rate(self) -> None:
        window = Window(16, 4096)
        now = flow(window, 10_000, 30)
        full = window.chunks
        for _ in range(3 * EPOCHS):
            window.discard_epoch()
            now += 100 * SECOND_NS
            window.note_delivery(5, RTT_NS, now)
        assert window.chunks == full

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, 10_000), st.integers(0, SECOND_NS), st.integers(0, SECOND_NS)),
                st.none(),
            )
        )
    )
    def test_window_stays_in_its_bounds(self, steps: list[tuple[int, int, int] | None]) -> None:
        window, now = Window(8, 512), 0
        for step in steps:
            before = window.chunks
            if step is None:
                window.note_timeout()
            else:
                chunk_count, rtt_ns, pause_ns = step
                now += pause_ns
                window.note_delivery(chunk_count, rtt_ns, now)
            assert 8 <= window.chunks <= 512
            assert before // 2 <= window.chunks <= before * 2


def test_classic_profile_has_a_window_of_one_chunk() -> None:
    assert (CLASSIC.window_min_chunks, CLASSIC.window_max_chunks) == (1, 1)
