"""``status --watch`` on a terminal: active files and clients with problems first, the rest counted."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from pspctl.ui.screen import Screen
from pspctl.ui.views import StatusView, status_view
from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl.fakes import client, file

CLIENT_COUNT = 30


def status(*files: Any, clients: list[Any] | None = None) -> StatusView:
    """Return the view of a network with many clients."""
    server = network_pb2.Server(address="10.0.0.1:7070", version="9", profile="fast", uptime_seconds=9)
    given = [client(f"client-{index}") for index in range(CLIENT_COUNT)] if clients is None else clients
    return status_view(status_service_pb2.GetStatusResponse(server=server, clients=given, files=files))


def lines_of(
    view: StatusView, width: int = 80, height: int = 24, *, shows_one_file: bool = False, note: str = ""
) -> list[str]:
    canvas = Console(width=width, height=height, file=io.StringIO(), markup=False, highlight=False, emoji=False)
    with canvas.capture() as captured:
        canvas.print(Screen(view, shows_one_file=shows_one_file, note=note))
    lines = captured.get().splitlines()
    assert len(lines) < height
    return lines


def running(name: str = "running.iso", held: tuple[int, ...] = (1,) * CLIENT_COUNT) -> Any:
    return file(name, held=held, rate_bytes_per_second=5 << 20, eta_seconds=12)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (80, 12), (200, 100)])
def test_active_file_is_visible_among_many(width: int, height: int) -> None:
    done = [file(f"done-{index}.iso", held=(8,) * CLIENT_COUNT) for index in range(40)]
    text = "\n".join(lines_of(status(*done, running()), width, height))
    row = next(line for line in text.splitlines() if line.startswith("running.iso"))
    assert "distributing" in row
    assert "5.0 MiB/s" in row
    assert "12.0 s" in row


def test_omitted_clients_are_counted() -> None:
    assert lines_of(status(file(held=(8,) * CLIENT_COUNT)))[-1] == "and 15 more clients, all complete"


def test_incomplete_or_lost_clients_come_first() -> None:
    clients = [client(f"client-{index}") for index in range(CLIENT_COUNT)]
    clients[28].state = network_pb2.CLIENT_STATE_LOST
    lines = lines_of(status(running(held=(8,) * 27 + (4, 0, 2)), clients=clients))
    names = [line.split()[0] for line in lines if line.startswith("client-")]
    assert names[:3] == ["client-28", "client-29", "client-27"]
    assert lines[-1].endswith("more clients, all complete")


def test_omitted_clients_are_counted_by_condition() -> None:
    clients = [client(f"client-{index}") for index in range(CLIENT_COUNT)]
    for lost in clients[:20]:
        lost.state = network_pb2.CLIENT_STATE_LOST
    lines = lines_of(status(running(), clients=clients), height=16)
    assert lines[-1] == "and 23 more clients: 17 lost, 6 incomplete"


def test_client_that_declined_is_not_complete() -> None:
    shared = file("done.iso", held=(8,) * CLIENT_COUNT)
    shared.clients[29].held_chunk_count, shared.clients[29].complete = 0, False
    shared.clients[29].refusal = "no room"
    lines = lines_of(status(shared))
    assert next(line for line in lines if line.startswith("client-")).split()[0] == "client-29"
    assert lines_of(status(shared), 120, 7)[-1] == "and 30 more clients: 29 complete, 1 declined"


def test_table_without_rows_has_no_headings() -> None:
    lines = lines_of(status(file(held=(8,) * CLIENT_COUNT)), 120, 7)
    assert not any(line.startswith("CLIENT") for line in lines)
    assert lines[-1] == "and 30 more clients, all complete"


def test_nothing_is_omitted_if_all_fits() -> None:
    lines = lines_of(status(running(), file("done", held=(8,) * CLIENT_COUNT)), height=40)
    assert sum(line.startswith("client-") for line in lines) == CLIENT_COUNT
    assert not any("more" in line for line in lines)


def test_file_in_full_fits_with_stragglers_first() -> None:
    view = status(running(held=(8,) * 29 + (3,)))
    lines = lines_of(view, shows_one_file=True)
    assert next(line for line in lines if line.startswith("client-")).split()[0] == "client-29"
    assert any("more clients, all complete" in line for line in lines)
    assert any(line.startswith("duplicates") for line in lines)
    low = lines_of(view, height=12, shows_one_file=True)
    assert any(line.startswith("running.iso") for line in low)
    assert any(line.startswith("client-29") for line in low)


def test_empty_network_says_what_to_do() -> None:
    text = "\n".join(lines_of(status(clients=[])))
    assert "pspctl seed FILE" in text
    assert "pspctl launch N" in text


def test_note_stands_above_status() -> None:
    assert lines_of(status(), note="lost the server")[0] == "lost the server"
