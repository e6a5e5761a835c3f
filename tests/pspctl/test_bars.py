"""The progress bars: they end full, and show the rate since they became visible."""

from __future__ import annotations

import io

import pytest
import rich.progress
from rich.console import Console

from pspctl.ui.bars import BarProgress, RateColumn
from pspctl.ui.views import file_view
from pspd.daemon.source import SeedProgress
from pspd.v1 import network_pb2
from tests.pspctl.fakes import file

MIB = 1 << 20


class Shown:
    """Bars in memory, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.progress = rich.progress.Progress(console=Console(file=io.StringIO()), get_time=lambda: self.now)
        self.bars = BarProgress(self.progress)

    def percentages(self) -> dict[str, float]:
        return {task.description.strip(): task.percentage for task in self.progress.tasks}

    def rate(self, label: str) -> str:
        task = next(task for task in self.progress.tasks if task.description == label)
        return RateColumn().render(task).plain


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_bars_are_full_when_file_is_complete(shown: Shown) -> None:
    for step in (
        SeedProgress("hashing", 8192, 8192),
        SeedProgress("waiting", 1, 2),
        SeedProgress("seeding", 6, 8, file(held=(3, 3))),
    ):
        shown.bars.show_step(step)
    shown.bars.show_exchange(file_view(file(held=(4, 4))))
    shown.bars.show_exchange(file_view(file(held=(8, 8))))
    assert set(shown.percentages().values()) == {100.0}
    assert shown.percentages().keys() == {"hashing", "waiting", "seeding", "exchange", "client-0", "client-1"}


def test_empty_file_has_no_bar(shown: Shown) -> None:
    empty = file(held=(0, 0), chunk_count=0)
    shown.bars.show_step(SeedProgress("hashing", 0, 0))
    shown.bars.show_step(SeedProgress("waiting", 2, 2))
    shown.bars.show_step(SeedProgress("seeding", 0, 0, empty))
    shown.bars.show_exchange(file_view(empty))
    assert shown.percentages() == {"waiting": 100.0}


def test_bars_are_full_after_seed_without_wait(shown: Shown) -> None:
    shown.bars.show_step(SeedProgress("seeding", 7, 8, file(held=(4, 3))))
    shown.bars.show_seeded(file_view(file(held=(4, 4))))
    assert shown.percentages() == {"seeding": 100.0}


def test_bar_of_lost_client_is_removed(shown: Shown) -> None:
    shown.bars.show_exchange(file_view(file(held=(4, 4))))
    shown.bars.show_exchange(file_view(file(held=(8,))))
    assert shown.percentages() == {"exchange": 100.0, "client-0": 100.0}


def test_bar_without_duration_has_no_rate(shown: Shown) -> None:
    for done in (MIB, 512 * MIB, 1024 * MIB):
        shown.now += 0.001
        shown.bars.show_step(SeedProgress("hashing", done, 1024 * MIB))
    assert shown.rate("hashing") == ""


def test_finished_bar_shows_average_rate_while_shown(shown: Shown) -> None:
    for done in (64 * MIB, 80 * MIB, 104 * MIB):
        shown.bars.show_step(SeedProgress("hashing", done, 104 * MIB))
        shown.now += 2.0
    assert shown.rate("hashing") == "10.0 MiB/s"


def test_running_bar_shows_current_rate(shown: Shown) -> None:
    shown.bars.show_step(SeedProgress("hashing", 0, 100 * MIB))
    for done in (10, 20):
        shown.now += 1.0
        shown.bars.show_step(SeedProgress("hashing", done * MIB, 100 * MIB))
    assert shown.rate("hashing") == "10.0 MiB/s"


def test_bars_note_that_no_client_is_connected(shown: Shown) -> None:
    shown.bars.show_step(SeedProgress("seeding", 0, 8, file(held=(), state=network_pb2.FILE_STATE_SEEDING)))
    canvas = shown.progress.console.file
    assert isinstance(canvas, io.StringIO)
    assert "no client is connected" in canvas.getvalue()
