"""Run each command of the error table in ``docs/cli.md``; it must end as documented."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pspctl.main import COMMANDS
from pspd.cli.main import cli as pspd
from tests.support.daemons import BIN, Daemon, Network
from tests.support.files import random_file

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
HEADING = "## When something goes wrong\n"
ROW = re.compile(r"^\| (`+)(?P<command>.+?)\1 \| (`+)(?P<message>.+?)\3 \| (?P<code>\d+) \|$", re.MULTILINE)
RUN_SECONDS = 20
ROW_COUNT_MIN = 40


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        command: the command line.
        message: the error message without the program's name; ``...`` stands for any text.
        code: the exit code.
    """

    command: str
    message: str
    code: int

    @property
    def words(self) -> list[str]:
        """The words of the command, starting with the program's name."""
        words = self.command.split()
        return words[next(index for index, word in enumerate(words) if word in ("pspd", "pspctl")) :]

    @property
    def program(self) -> str:
        """The name before the message: ``pspctl``, or ``pspd`` and the daemon's name."""
        return " ".join(self.words[:2]) if self.words[0] == "pspd" else self.words[0]


@dataclass(frozen=True)
class Scene:
    """The network that the page describes above its table."""

    network: Network
    server: Daemon

    def real(self, text: str) -> str:
        """Return a text of the page with the addresses of this network."""
        for on_page, real in (
            ("10.0.0.1:7070", self.server.ready_line["listen"]),
            ("7071", str(self.server.ready_line["data_port"])),
            ("10.0.0.1", self.network.host.address),
        ):
            text = text.replace(on_page, real)
        return text


def rows() -> list[Row]:
    """Return the rows of the table below the heading."""
    section = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    found = [
        Row(match["command"].strip(), match["message"].strip(), int(match["code"])) for match in ROW.finditer(section)
    ]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(found) == len(lines) - 2, "a line of the table is not a valid row"  # two lines are its head
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Start the network that the page describes, and create its files."""
    with Network(tmp_path_factory.mktemp("errors") / "network") as made:
        folder = made.folder
        server = made.server()
        anna, _ = (made.client(name) for name in ("anna", "bert"))
        resource.prlimit(anna.pid, resource.RLIMIT_FSIZE, (1024 * 1024, 1024 * 1024))
        for name, option in (("talk.mp4", "--wait"), ("lesson.bin", "--hold")):
            made.ctl("seed", random_file(folder / name, 200_000), option)
        (folder / "own.mp4").write_bytes((folder / "talk.mp4").read_bytes())
        (folder / "own.mp4").chmod(0o600)
        random_file(folder / "big.iso", 5000)
        random_file(folder / "notes.txt", 5000, seed=1)
        random_file(folder / "bert" / "notes.txt", 5000, seed=2)
        random_file(folder / "full" / "client-0" / "big.iso", 5000)
        random_file(folder / "huge.bin", 3_000_000)
        (folder / "folder").mkdir()
        (folder / "deep" / "/".join(250 * "d")).mkdir(parents=True)
        (folder / "psp.toml").write_text("colour = 1\n")
        for path in (folder / "pipe", folder / "folder" / "pipe"):
            os.mkfifo(path)
        made.ctl("context", "add", "lab", made.address)
        made.client("emil").stop()
        for copy in ("emil-2", "emil-3"):
            shutil.copytree(folder / "emil", folder / copy)
        made.client("emil")
        made.client("emil-2", "--name", "emil")
        yield Scene(made, server)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.command)
def test_command_ends_as_documented(scene: Scene, row: Row) -> None:
    network = scene.network
    environment = network.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = network.host.run(
        ["sh", "-c", scene.real(row.command)], timeout=RUN_SECONDS, cwd=network.folder, env=environment
    )
    lines = done.stderr.splitlines()
    expected = re.escape(f"{row.program}: error: {scene.real(row.message)}").replace(r"\.\.\.", ".*")
    assert lines, f"nothing on stderr; exit code {done.returncode}"
    assert re.fullmatch(expected, lines[-1]), done.stderr
    assert done.returncode == row.code
    assert "Traceback" not in done.stderr


def test_table_covers_every_command() -> None:
    programs = {("pspctl", command) for command in COMMANDS} | {("pspd", command) for command in pspd.commands}
    assert programs <= {(program, command) for program, command, *_ in (row.words for row in rows())}
    assert len(rows()) == len({row.command for row in rows()}) >= ROW_COUNT_MIN
