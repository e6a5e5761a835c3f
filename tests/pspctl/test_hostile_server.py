"""A server with control characters in every text that it sends: none reaches the terminal."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from rich.console import Console
from rich.text import Text

from pspctl.ui import tables
from pspctl.ui.bars import shown_bars
from pspctl.ui.plain import Plain
from pspctl.ui.progress import LineProgress
from pspctl.ui.screen import Screen
from pspctl.ui.views import file_view, status_view
from pspd.errors import Reason, error_classes
from pspd.text.plain import plain_json, plain_lines, plain_text
from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl import fakes
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer

C1 = "".join(map(chr, range(0x80, 0xA0)))
BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
EVIL = f"\x1b]0;owned\x07\x1b[2J\r\n\x00\x7f{C1}{BIDI}\u2028"


def poison(message: Message) -> None:
    """Append the control characters to every text of a message and of the messages in it."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, value + EVIL)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else [value]:
                poison(part)


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def hostile(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """Put control characters into all texts of the fake server."""
    missing = [network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=3), last_holder="gone")]
    stalled = fakes.file("stalled", state=network_pb2.FILE_STATE_STALLED, missing_ranges=missing)
    declined = fakes.file("declined")
    declined.clients[0].refusal = "no room"
    fake.files = [stalled, declined, fakes.file("held", held_back=True)]
    fake.clients.append(fakes.client("source", source=True))
    for message in [*fake.files, *fake.clients]:
        poison(message)
    server = network_pb2.Server(
        address=fake.address, version="9.9.9", profile="fast", dropped_counts={EVIL: 1}, uptime_seconds=1
    )
    poison(server)
    monkeypatch.setattr(FakeServer, "server", property(lambda _: server))
    return fake


COMMANDS: list[tuple[str, ...]] = [
    ("status",),
    ("files",),
    ("clients",),
    ("cache",),
    ("version",),
    ("launch", "2"),
    ("stop", "--all-clients"),
]
FILE_COMMANDS = ["status", "release", "rm"]


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_an_escape(
    hostile: FakeServer, pspctl: Pspctl, command: tuple[str, ...], output: str
) -> None:
    result = pspctl(*command, "-o", output)
    assert result.stdout
    assert is_plain(result.stdout)
    assert is_plain(result.stderr)


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("command", FILE_COMMANDS)
def test_no_file_command_prints_an_escape(hostile: FakeServer, pspctl: Pspctl, command: str, output: str) -> None:
    file_id = hostile.files[1].file_id.hex()
    result = pspctl(command, file_id, "-o", output)
    assert "owned" in result.stdout + result.stderr
    assert is_plain(result.stdout)
    assert is_plain(result.stderr)


@pytest.mark.parametrize("reason", Reason)
def test_error_detail_is_escaped(fake: FakeServer, pspctl: Pspctl, reason: Reason) -> None:
    fake.refusal = error_classes()[reason](f"no: {EVIL}")
    result = pspctl("files")
    assert "owned" in result.stderr
    assert is_plain(result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_traceback_is_escaped(fake: FakeServer, pspctl: Pspctl) -> None:
    fake.refusal = error_classes()[Reason.WRONG_STATE](f"no: {EVIL}")
    result = pspctl("--debug", "files")
    assert "Traceback" in result.stderr
    assert is_plain(result.stderr)


def test_json_has_the_original_names(hostile: FakeServer, pspctl: Pspctl) -> None:
    document = json.loads(pspctl("status", "-o", "json").stdout)
    assert document["server"]["version"] == "9.9.9" + EVIL
    assert document["server"]["dropped_counts"] == {EVIL: 1}


def test_terminal_gets_only_sequences_of_pspctl(hostile: FakeServer) -> None:
    status = status_view(
        status_service_pb2.GetStatusResponse(
            server=hostile.server, cache=hostile.cache, clients=hostile.clients, files=hostile.files
        )
    )
    screens = [Screen(status, shows_one_file=shows_one_file, note=EVIL) for shows_one_file in (True, False)]
    for content in (tables.status_table(status), tables.file_table(status), *screens, Text(EVIL, style="red")):
        drawn = io.StringIO()
        Console(file=drawn, force_terminal=True, color_system="standard", width=200).print(Plain(content))
        text = drawn.getvalue()
        assert "\x1b[" in text
        plain = Text.from_ansi(text).plain
        assert is_plain(plain)
        assert "\x1b]" not in text
        assert "\x1b[2J" not in text


def test_progress_is_escaped(hostile: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    view = file_view(hostile.files[0])
    LineProgress().show_exchange(view)
    with shown_bars() as progress:
        progress.show_exchange(view)
        progress.show_note(EVIL)
    shown = capsys.readouterr()
    assert "owned" in shown.err
    assert not set(shown.err) & set(C1 + BIDI + "\x07\x00\x7f")


@pytest.mark.parametrize("char", EVIL)
def test_unprintable_character_is_escaped(char: str) -> None:
    assert plain_text(char).isprintable()
    assert plain_lines(f"a{char}\nb").endswith("\nb")
    written: Any = plain_json(json.dumps({char: char}, ensure_ascii=False))
    assert written.isprintable()
    assert json.loads(written) == {char: char}


@pytest.mark.parametrize("text", ["plain", "Übung €.bin", "日本語\u3042", "\U0001f600", "a\\x1b"])
def test_printable_text_is_unchanged(text: str) -> None:
    assert plain_text(text) == plain_lines(text) == plain_json(text) == text


def distort(message: Message, value: float) -> None:
    """Set every floating-point number of a message and of the messages in it."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            setattr(message, field.name, value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            part = getattr(message, field.name)
            for each in part if field.is_repeated else [part]:
                distort(each, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1.0])
@pytest.mark.parametrize("command", [("status",), ("files",), ("clients",), ("status", "held"), ("rm", "held")])
def test_nonsensical_numbers_are_shown(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, pspctl: Pspctl, command: tuple[str, ...], value: float
) -> None:
    held = fakes.file("held", state=network_pb2.FILE_STATE_SEEDING)
    held.missing_clients.append(network_pb2.MissingClient(name="gone"))
    fake.files = [held]
    server = network_pb2.Server(address=fake.address)
    for message in [server, held, *fake.clients]:
        distort(message, value)
    monkeypatch.setattr(FakeServer, "server", property(lambda _: server))
    assert pspctl(*command).exit_code == 0
    shown = pspctl(*command, "-o", "json")
    assert shown.exit_code == 0
    json.loads(shown.stdout, parse_constant=pytest.fail)
