"""Cost of the parts of the data path: each test names the items that a round processes; the summary shows ns per item.

Without ``--benchmark-enable`` each test runs once, like any other test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 200
NS_PER_SECOND = 1e9


class Cost(Protocol):
    """Measures a function that processes ``count`` items; ``setup`` makes its arguments, and is not measured."""

    def __call__(
        self, function: Callable[..., object], count: int, what: str, setup: Callable[[], tuple[Any, ...]] = ...
    ) -> None: ...


@pytest.fixture
def cost(benchmark: BenchmarkFixture) -> Cost:
    def measure(
        function: Callable[..., object], count: int, what: str, setup: Callable[[], tuple[Any, ...]] = tuple
    ) -> None:
        benchmark.extra_info.update(count=count, what=what)
        benchmark.pedantic(function, setup=lambda: (setup(), {}), rounds=ROUNDS, warmup_rounds=5)

    return measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the median time per item of each test."""
    measured = [each for each in config._benchmarksession.benchmarks if each.stats.rounds]
    if not measured:
        return
    terminalreporter.section("cost by part: median time per item, in nanoseconds")
    for each in measured:
        ns = each.stats.median * NS_PER_SECOND / each.extra_info["count"]
        terminalreporter.write_line(f"{ns:12,.0f} per {each.extra_info['what']:9} {each.fullname.split('::')[-1]}")
