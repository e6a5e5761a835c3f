"""``pspctl status`` and the lists, as JSON and as tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pspctl import outage
from pspctl.ui import views
from pspd.text.plain import plain_text
from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer, client, file

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
NAME = re.compile(r"`(\w+)`")
NESTED = re.compile(r"\{(`\w+`(?:, `\w+`)*)\}")
"""In the meaning of a field: the names of the fields of the objects in it."""
VIEWS: dict[str, type[Any]] = {
    "server": views.ServerView,
    "cache": views.CacheView,
    "client": views.ClientView,
    "file": views.FileView,
    "file.missing_ranges": views.MissingRangeView,
    "file.seconds": views.DurationsView,
    "file.missing_clients": views.MissingClientView,
    "traffic": views.TrafficView,
    "client of a file": views.FileClientView,
}
"""The type of each object, by the name of its table in the page, or by the name of its field."""
DOCUMENTS: dict[str, type[Any]] = {"status": views.StatusView, "seed": views.SeedView, "run": views.RunView}
"""The type of the answer of a command."""


def documented_fields() -> dict[str, list[str]]:
    """Return the names of the fields of each object, from the tables in the page."""
    found: dict[str, list[str]] = {}
    tables = re.findall(r"^\*\*([\w ]+)\*\*\n\n\| field .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    for name, rows in tables:
        found[name] = []
        for row in rows.splitlines():
            names, _, meaning = row.removeprefix("| ").split(" | ", 2)
            found[name] += NAME.findall(names)
            if nested := NESTED.search(meaning):
                found[f"{name}.{NAME.findall(names)[0]}"] = NAME.findall(nested[1])
    return found


def stalled_file() -> Any:
    missing = network_pb2.MissingRange(range=network_pb2.ChunkRange(start=2, stop=6), last_holder="client-9")
    return file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=[missing])


def change(**fields: Any) -> Any:
    return status_service_pb2.WatchStatusResponse(**fields)


def documented_answer(command: str) -> list[str]:
    """Return the fields of a command's answer, from the page's table of commands."""
    row = re.search(rf"^\| `{command}`.*? \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert row
    return NAME.findall(row[1])


def objects_in(file: Any) -> dict[str, Any]:
    """Return a file's JSON object and the objects in it, by their names in `VIEWS`; no array may be empty."""
    return {
        "file": file,
        "file.missing_ranges": file["missing_ranges"][0],
        "file.seconds": file["seconds"],
        "file.missing_clients": file["missing_clients"][0],
        "traffic": file["traffic"],
        "client of a file": file["clients"][0],
    }


def test_json_has_exactly_the_documented_fields(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [
        network_pb2.File(
            missing_ranges=[network_pb2.MissingRange()],
            missing_clients=[network_pb2.MissingClient()],
            clients=[network_pb2.FileClient()],
        )
    ]
    fake.clients = [network_pb2.Client(), network_pb2.Client(source=True)]
    document = json.loads(pspctl("status", "-o", "json").stdout)
    shown = {"server": document["server"], "cache": document["cache"], "client": document["clients"][0]}
    shown |= objects_in(document["files"][0])
    documented = {name: sorted(names) for name, names in documented_fields().items()}
    assert {name: sorted(found) for name, found in shown.items()} == documented
    assert document["sources"][0].keys() == document["clients"][0].keys()
    assert document.pop("schema_version") == 1
    assert sorted(document) == sorted(documented_answer("status"))


def test_views_have_exactly_the_documented_fields() -> None:
    assert {name: sorted(view.__annotations__) for name, view in VIEWS.items()} == {
        name: sorted(names) for name, names in documented_fields().items()
    }
    for command, view in DOCUMENTS.items():
        assert sorted(view.__annotations__) == sorted(documented_answer(command)), command


def test_documented_example_has_every_field_in_order() -> None:
    example = re.search(r'^\{"schema_version".*"verified_client_count".*$', PAGE.read_text(), re.MULTILINE)
    assert example
    document = json.loads(example[0])
    file = document["file"]
    shown = {"file": file, "file.seconds": file["seconds"], "traffic": file["traffic"], "cache": document["cache"]}
    shown["client of a file"] = file["clients"][0]
    assert {name: list(found) for name, found in shown.items()} == {
        name: list(VIEWS[name].__annotations__) for name in shown
    }


def test_json_numbers_are_numbers_and_ids_are_hex(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(size_bytes=5 << 32)]
    found = json.loads(pspctl("status", "-o", "json").stdout)["files"][0]
    assert found["size_bytes"] == 5 << 32
    assert found["file_id"] == fake.files[0].file_id.hex()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (network_pb2.FILE_STATE_SEEDING, "seeding"),
        (network_pb2.FILE_STATE_SEEDED, "seeded"),
        (network_pb2.FILE_STATE_DISTRIBUTING, "distributing"),
        (network_pb2.FILE_STATE_STALLED, "stalled"),
        (network_pb2.FILE_STATE_COMPLETE, "complete"),
    ],
)
def test_json_names_states(pspctl: Pspctl, fake: FakeServer, state: Any, text: str) -> None:
    fake.files = [file(state=state)]
    assert json.loads(pspctl("files", "-o", "json").stdout)["files"][0]["state"] == text


def test_sources_are_listed_apart_from_clients(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.clients = [client("a"), client("s", source=True), client("z", state=network_pb2.CLIENT_STATE_LOST)]
    for command in ("status", "clients"):
        document = json.loads(pspctl(command, "-o", "json").stdout)
        assert [(found["name"], found["state"]) for found in document["clients"]] == [
            ("a", "connected"),
            ("z", "lost"),
        ]
        assert [found["name"] for found in document["sources"]] == ["s"]


def test_json_has_missing_ranges(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [stalled_file()]
    found = json.loads(pspctl("status", "-o", "json").stdout)["files"][0]
    assert found["missing_ranges"] == [{"start": 2, "stop": 6, "last_holder": "client-9"}]
    assert "chunks [2, 6) have no reachable holder, last held by client-9" in pspctl("status").stdout


def test_table_shows_the_whole_network(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    result = pspctl("status")
    assert result.exit_code == 0
    assert result.stderr == ""
    header, *lines = result.stdout.splitlines()
    assert header.split("  ")[0] == f"server {fake.address}"
    assert "cache 8.0 KiB of 64.0 MiB used, hit ratio 75.0 %" in header
    assert ["client-0", "10.0.0.1:4000", "connected", "1.2", "ms"] in [line.split() for line in lines]
    row = next(line for line in lines if line.startswith("big.iso"))
    assert row.split()[1:] == [
        fake.files[0].file_id.hex()[:12],
        *("8.0", "KiB"),
        "distributing",
        *("37.5", "%"),
        "0/2",
        "1",
    ]


def test_empty_network_says_what_to_do(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.clients = []
    text = pspctl("status").stdout
    assert "pspd client" in text
    assert "pspctl seed" in text


def test_one_file_shows_clients_and_exchange(pspctl: Pspctl, fake: FakeServer) -> None:
    traffic = network_pb2.Traffic(
        contributed_bytes=3 * 8192,
        seeding_contributed_bytes=8192,
        delivered_bytes=2 * 8192,
        seeding_delivered_bytes=8192,
        duplicate_bytes=2048,
        request_datagrams=4,
        broadcast_datagrams=8,
    )
    fake.files = [file(held=(8, 2), traffic=traffic), file("other")]
    lines = [" ".join(line.split()) for line in pspctl("status", "big.iso").stdout.splitlines()]
    for line in (
        "client-0 8 8 4 100.0 % yes",
        "client-1 2 8 4 25.0 % no",
        "contributed / file size 16.0 KiB 2.00 1.0",
        "delivered / needed 8.0 KiB 1.00 1.0",
        "duplicates / file size 2.0 KiB 0.25 0",
        "datagrams / chunk delivered 12 1.50",
    ):
        assert line in lines
    assert not any("other" in line for line in lines)


def test_late_joiner_leaves_no_ideal(pspctl: Pspctl, fake: FakeServer) -> None:
    traffic = network_pb2.Traffic(contributed_bytes=6 * 8192, delivered_bytes=2 * 8192)
    late = file(held=(8, 8, 8), traffic=traffic)
    late.clients[2].share_chunk_count = 0
    fake.files = [late]
    lines = [" ".join(line.split()) for line in pspctl("status", "big.iso").stdout.splitlines()]
    assert "contributed / file size 48.0 KiB 6.00 -" in lines
    assert "delivered / needed 16.0 KiB 1.00 1.0" in lines
    assert any(line.startswith("no ideal (-): clients joined after") for line in lines)


def test_file_is_found_by_start_of_its_id(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file("a"), file("b")]
    document = json.loads(pspctl("status", fake.files[1].file_id.hex()[:8], "-o", "json").stdout)
    assert [found["name"] for found in document["files"]] == ["b"]


def test_unknown_file_is_not_found(pspctl: Pspctl) -> None:
    for arguments in (
        ["status", "nope"],
        ["status", "nope", "--watch"],
        ["wait", "nope"],
        ["release", "nope"],
    ):
        result = pspctl(*arguments)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "pspctl: error: the network has no file 'nope': see `pspctl files`\n"


def test_control_characters_in_names_are_escaped(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file("[red]\x1b[2J")]
    assert "[red]\\x1b[2J" in pspctl("files").stdout
    assert plain_text("ü\n\x07") == "ü\\n\\x07"


def test_empty_file_is_at_100_percent(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file("empty", held=(0, 0), chunk_count=0)]
    assert "100.0 %" in pspctl("status").stdout
    assert pspctl("status", "empty").exit_code == 0


@pytest.mark.usefixtures("no_outage_allowed")
def test_watch_prints_a_line_per_change(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    fake.changes = [
        change(cache=network_pb2.Cache(hit_count=9)),
        change(clients=[client("client-1", state=network_pb2.CLIENT_STATE_LOST)]),
        change(files=[stalled_file()]),
        change(files=[file(held=(8, 8))]),
        change(snapshot=True, clients=[client("client-0")]),
    ]
    result = pspctl("status", "--watch")
    assert result.stdout.splitlines() == [
        "client-0: connected",
        "client-1: connected",
        "big.iso: distributing, 37.5 %, 0 of 2 clients complete",
        "client-1: lost",
        "big.iso: stalled, 37.5 %, 0 of 2 clients complete;"
        " chunks [2, 6) have no reachable holder, last held by client-9: start it again",
        "big.iso: complete, 100.0 %, 2 of 2 clients complete",
        "client-1: gone",
        "big.iso: gone",
    ]
    assert result.exit_code == 5
    assert "was lost and has not come back for 0 s" in result.stderr


@pytest.mark.usefixtures("no_outage_allowed")
def test_watch_in_json_prints_one_document_per_line(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file("a")]
    fake.changes = [change(files=[file("b")]), change(files=[file("a", held=(8, 8))])]
    documents = [json.loads(line) for line in pspctl("status", "--watch", "-o", "json").stdout.splitlines()]
    assert [[(found["name"], found["state"]) for found in each["files"]] for each in documents] == [
        [("a", "distributing")],
        [("a", "distributing"), ("b", "distributing")],
        [("a", "complete"), ("b", "distributing")],
    ]
    assert all(each["server"]["version"] == "9.9.9" for each in documents)


def test_watch_waits_for_restarting_server(pspctl: Pspctl, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "RETRY_SECONDS", 0.0)
    fake.files_after_restarts = [[file()], [file(held=(8, 8))], []]
    result = pspctl("status", "big.iso", "--watch")
    assert result.exit_code == 3  # the last server has no file
    assert result.stdout.splitlines()[-1] == "big.iso: complete, 100.0 %, 2 of 2 clients complete"
    assert result.stderr.startswith(f"pspctl: lost the server at {fake.address}: waiting for it to come back\n")


def test_rate_and_time_left_are_shown_while_data_moves(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file("old", held=(8, 8)), file(rate_bytes_per_second=3 << 20, eta_seconds=75.25)]
    old, new = json.loads(pspctl("files", "-o", "json").stdout)["files"]
    assert (old["rate_bytes_per_second"], old["eta_seconds"]) == (None, None)
    assert (new["rate_bytes_per_second"], new["eta_seconds"]) == (3 << 20, 75.2)
    heading, *rows = pspctl("files").stdout.splitlines()
    assert heading.split()[4:7] == ["PROGRESS", "RATE", "LEFT"]
    assert "3.0 MiB/s  1 min 15 s" in rows[1]
    fake.files = [file("old", held=(8, 8))]
    assert "RATE" not in pspctl("files").stdout


def test_watch_of_idle_network_is_renewed(pspctl: Pspctl, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "WATCH_SECONDS", 1.0)
    monkeypatch.setattr(fake, "find_files", lambda _: [file(held=(8, 8) if fake.watch_count == 2 else (8, 2))])
    fake.stream_stays = True
    assert pspctl("wait", "big.iso").exit_code == 0
