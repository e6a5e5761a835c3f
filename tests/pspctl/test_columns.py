"""Tables that fit the terminal: only names are shortened."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from pspctl.ui.columns import NAME_WIDTH_MIN, Column, FittedTable, Kind, shortened
from pspctl.ui.tables import clients_table, contexts_table, file_clients_table, files_table
from pspctl.ui.views import client_views, file_view
from tests.pspctl.fakes import client, file

LONG_NAME = "very-long-name-of-a-distribution-image-for-arm64-v2.iso"
RUNNING = {"rate_bytes_per_second": 559 << 20, "eta_seconds": 3599.0}


def drawn(renderable: RenderableType, width: int) -> list[str]:
    canvas = Console(width=width, file=io.StringIO(), markup=False, highlight=False, emoji=False)
    with canvas.capture() as captured:
        canvas.print(renderable, crop=False)
    return captured.get().splitlines()


@pytest.mark.parametrize("name", [LONG_NAME, "とても長い名前のファイル" * 5, "e\u0301" * 60, "👍🏽" * 40, "short"])
@pytest.mark.parametrize("width", [70, 80, 100, 120])
@pytest.mark.parametrize("fields", [{}, RUNNING], ids=["still", "running"])
def test_state_and_progress_are_never_cut(name: str, width: int, fields: dict[str, float]) -> None:
    lines = drawn(files_table([file_view(file(name, **fields))]), width)
    assert all(cell_len(line) <= width for line in lines)
    heading, row = lines
    assert "STATE" in heading
    assert "distributing" in row
    assert "37.5 %" in row
    assert ("559.0 MiB/s" in row and "59 min 59 s" in row) == bool(fields)


def test_long_name_is_shortened_in_the_middle() -> None:
    row = drawn(files_table([file_view(file(LONG_NAME))]), 100)[1]
    name, rest = row.split(maxsplit=1)
    assert name.startswith("very-long-n")
    assert name.endswith("v2.iso")
    assert "…" not in rest
    assert file(LONG_NAME).file_id.hex()[:12] in rest


@pytest.mark.parametrize(
    "table",
    [
        clients_table(client_views([client(LONG_NAME, address="[2001:db8:1234:5678:9abc:def0:1234:5678]:56726")])),
        file_clients_table(file_view(file()), file_view(file())["clients"]),
        contexts_table("lab", {LONG_NAME: "server.of.the.laboratory.example:7070"}),
    ],
    ids=["clients", "file clients", "contexts"],
)
def test_other_tables_shorten_only_names(table: FittedTable) -> None:
    wide, narrow = drawn(table, 1000), drawn(table, 60)
    for wide_row, narrow_row in zip(wide[1:], narrow[1:], strict=True):
        assert [word for word in narrow_row.split() if "…" not in word and word not in wide_row.split()] == []
        assert narrow_row.count("…") <= 1


def test_narrow_terminal_gets_whole_cells() -> None:
    heading, row = drawn(files_table([file_view(file(LONG_NAME))]), 30)
    assert row.split()[1:] == ["distributing", "37.5", "%", "0/2"]
    assert cell_len(row.split()[0]) == NAME_WIDTH_MIN
    assert heading.split() == ["FILE", "STATE", "PROGRESS", "CLIENTS"]


def test_optional_columns_are_dropped_before_names_get_short() -> None:
    table = FittedTable(Column("N", Kind.NAME), Column("A", drop_order=2), Column("B", drop_order=1), Column("C"))
    table.add_row("n" * 20, "a" * 10, "b" * 10, "c")
    assert drawn(table, 60)[0].split() == ["N", "A", "B", "C"]
    assert drawn(table, 40)[0].split() == ["N", "A", "C"]
    assert drawn(table, 20)[0].split() == ["N", "C"]


@given(st.text(st.characters(exclude_categories=("C", "Z"))), st.integers(1, 40))
def test_shortened_text_fits_and_keeps_its_start(text: str, cells: int) -> None:
    short = shortened(text, cells)
    assert cell_len(short) <= cells
    begin, ellipsis, end = short.partition("…") if short != text else (text, "", "")
    assert text.startswith(begin)
    assert text.endswith(end)
    assert short == text or ellipsis
