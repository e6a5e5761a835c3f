"""``pspd``: its help, its options, its configuration file, its errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pspd import __version__
from pspd.cli.main import CONNECT_SECONDS_DEFAULT, cli, main
from pspd.core.model.parameters import FAST_CACHE_CHUNKS, PROFILES, Order
from pspd.daemon.client.daemon import ClientPlan, StorageOptions
from pspd.net.faults import Faults

COMMANDS = sorted(cli.commands)
ERROR_LINE = re.compile(r"pspd( (server|client|agent))?: error: .+\n")


@dataclass
class Runs:
    """The arguments with which daemons would have been started."""

    given: list[tuple[Any, ...]] = field(default_factory=list)

    def note(self, *given: Any) -> None:
        self.given.append(given)

    def catch(self, name: str, main: Callable[[Any], object]) -> int:
        main("stopping")
        return 0


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Record the arguments of each daemon instead of running it."""
    runs = Runs()
    monkeypatch.setattr("pspd.daemon.process.run", runs.catch)
    monkeypatch.setattr("pspd.daemon.server.daemon.run_server", runs.note)
    monkeypatch.setattr("pspd.daemon.client.daemon.run_clients", runs.note)
    monkeypatch.setattr("pspd.daemon.agent.run_agent", runs.note)
    return runs


Pspd = Callable[..., tuple[int, str]]


@pytest.fixture
def pspd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pspd:
    """Run ``pspd`` in this process; return its exit code and its stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pspd", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    for name in ("GRPC_VERBOSITY", "GRPC_ENABLE_FORK_SUPPORT"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))
    return call


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_example_of_each_command_is_valid(self, command: str) -> None:
        shown = CliRunner().invoke(cli, [command, "--help"])
        assert shown.exit_code == 0
        (line,) = [line for line in shown.output.splitlines() if "Example:" in line]
        words = line.partition("Example: ")[2].split()
        assert words[:2] == ["pspd", command]
        cli.commands[command].make_context(command, words[2:])

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_option_has_a_help(self, command: str) -> None:
        for option in cli.commands[command].params:
            assert isinstance(option, click.Option)
            assert option.help, option.name

    def test_command_names(self) -> None:
        shown = CliRunner().invoke(cli, ["-h"])
        assert shown.exit_code == 0
        assert COMMANDS == ["agent", "client", "server"]
        assert all(command in shown.output for command in COMMANDS)

    def test_version_is_printed(self) -> None:
        assert __version__ in CliRunner().invoke(cli, ["--version"]).output


class TestDefaults:
    def test_server_defaults(self, pspd: Pspd, runs: Runs) -> None:
        assert pspd("server") == (0, "")
        (_, listen, data_port, _, parameters, cache_chunks, faults, reachability_seconds) = runs.given[0]
        assert (listen, data_port, faults, reachability_seconds) == ("127.0.0.1:7070", None, None, 30)
        assert (parameters, cache_chunks) == (PROFILES["fast"], FAST_CACHE_CHUNKS)

    @pytest.mark.parametrize("order", Order)
    @pytest.mark.parametrize("profile", PROFILES)
    def test_profile_and_order_are_passed_on(self, pspd: Pspd, runs: Runs, profile: str, order: Order) -> None:
        assert pspd("server", "--profile", profile, "--order", order.value) == (0, "")
        parameters = runs.given[0][4]
        assert (parameters.profile, parameters.order) == (profile, order)

    @pytest.mark.parametrize(
        ("arguments", "chunks"),
        [
            (("--cache", "64MiB"), 64 * 1024),
            (("--cache", "100KiB"), 100),
            (("--cache", "2047"), 1),
            (("--cache", "auto"), None),
            (("--profile", "classic"), None),
            (("--profile", "classic", "--cache", "1KiB"), 1),
        ],
    )
    def test_cache_comes_from_the_option_or_the_profile(
        self, pspd: Pspd, runs: Runs, arguments: tuple[str, ...], chunks: int | None
    ) -> None:
        assert pspd("server", *arguments) == (0, "")
        assert runs.given[0][5] == chunks

    def test_client_defaults(self, pspd: Pspd, runs: Runs) -> None:
        assert pspd("client", "--name", "a") == (0, "")
        assert runs.given == [
            ("stopping", "127.0.0.1:7070", [ClientPlan("a", Path())], CONNECT_SECONDS_DEFAULT, None, StorageOptions())
        ]

    def test_client_storage_options(self, pspd: Pspd, runs: Runs) -> None:
        assert pspd("client", "--max-bytes", "2MiB", "--verify") == (0, "")
        assert runs.given[0][5] == StorageOptions(2 << 20, verifies=True)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--require-mount", "--dir", "/proc/files"),
            ("--dir", "/proc/files", "--count", 2, "--require-mount"),
            ("--require-mount=/proc", "--dir", "/proc"),
            ("--require-mount", "/proc", "--dir", "/proc/files"),
        ],
    )
    def test_client_with_mounted_disk_starts(self, pspd: Pspd, runs: Runs, arguments: tuple[object, ...]) -> None:
        assert pspd("client", *arguments) == (0, "")
        assert len(runs.given) == 1

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            (
                ("--dir", "/psp/files"),
                4,
                "/psp/files is not on a mounted disk: neither it nor a parent folder other than / is",
            ),
            (("/psp", "--dir", "/psp/files"), 4, "/psp is not a mount point: mount the disk first"),
            (("/proc", "--dir", "/psp/files"), 2, "/psp/files is not below /proc: name a mount point above it with"),
        ],
    )
    def test_client_without_its_disk_does_not_start(
        self, pspd: Pspd, runs: Runs, arguments: tuple[str, ...], code: int, told: str
    ) -> None:
        ended, line = pspd("client", "--require-mount", *arguments)
        assert (ended, line.count("\n")) == (code, 1)
        assert line.startswith(f"pspd client: error: {told}")
        assert not runs.given
        assert not Path("/psp").exists()

    def test_client_that_accepts_no_file_is_refused(self, pspd: Pspd, runs: Runs) -> None:
        code, told = pspd("client", "--max-bytes", "0KiB")
        assert (code, told) == (2, "pspd client: error: --max-bytes 0 accepts no file: give more\n")
        assert not runs.given

    def test_client_is_named_after_its_host(self, pspd: Pspd, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "this-host")
        pspd("client", "--count", 2, "--first-index", 3, "--faults", "loss=0.5,seed=1")
        (_, _, plans, _, faults, _) = runs.given[0]
        assert [plan.name for plan in plans] == ["this-host-3", "this-host-4"]
        assert faults == Faults(loss=0.5, seed=1)

    def test_agent_defaults(self, pspd: Pspd, runs: Runs) -> None:
        assert pspd("agent") == (0, "")
        assert runs.given == [("stopping", "127.0.0.1:7080")]


class TestConfig:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Callable[[str], Path]:
        def write(text: str) -> Path:
            path = tmp_path / "pspd.toml"
            path.write_text(text, encoding="utf-8")
            return path

        return write

    def test_config_settings_are_the_defaults(self, pspd: Pspd, runs: Runs, config: Callable[[str], Path]) -> None:
        path = config('listen = "127.0.0.1:9000"\ndata_port = 9005\nprofile = "classic"\nstate_dir = "/var/psp"\n')
        assert pspd("server", "--config", path) == (0, "")
        (_, listen, data_port, folder, parameters, *_) = runs.given[0]
        assert (listen, data_port, folder) == ("127.0.0.1:9000", 9005, Path("/var/psp"))
        assert parameters.profile == "classic"

    def test_config_number_is_read_as_if_typed(self, pspd: Pspd, runs: Runs, config: Callable[[str], Path]) -> None:
        assert pspd("server", "--config", config("state_dir = 5\ncache = 2048\nreach = 60.5")) == (0, "")
        (_, _, _, folder, _, cache_chunks, _, reachability_seconds) = runs.given[0]
        assert (folder, cache_chunks, reachability_seconds) == (Path("5"), 2, 60.5)

    @pytest.mark.parametrize("config_first", [True, False])
    def test_command_line_overrides_config(
        self, pspd: Pspd, runs: Runs, config: Callable[[str], Path], config_first: bool
    ) -> None:
        options = [("--config", config('cache = "1KiB"\nlisten = "[::1]:1"')), ("--cache", "2KiB")]
        pspd("server", *(word for option in (options if config_first else options[::-1]) for word in option))
        assert (runs.given[0][1], runs.given[0][5]) == ("[::1]:1", 2)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("colour = 1", "'colour' is not an option"),
            ('config = "other.toml"', "'config' is not an option"),
            ("data-port = 1", "'data-port' is not an option"),
            ("listen 1", "cannot read"),
            ("data_port = 99999", "99999"),
            ('data_port = "many"', "many"),
            ('profile = "modern"', "modern"),
            ('cache = "a lot"', "'a lot' is not a size"),
            ('listen = "hub:"', "'hub:' is not an address"),
            ('state_dir = ["a"]', "'state_dir' is neither text nor a number"),
            ("listen = true", "'listen' is neither text nor a number"),
            ("cache = " + "[" * 5000, "cannot read"),
        ],
    )
    def test_unknown_setting_ends_with_2(
        self, pspd: Pspd, runs: Runs, config: Callable[[str], Path], text: str, told: str
    ) -> None:
        code, stderr = pspd("server", "--config", config(text))
        assert code == 2
        assert told in stderr
        assert ERROR_LINE.fullmatch(stderr), stderr
        assert not runs.given

    def test_endless_config_ends_with_2(self, pspd: Pspd, runs: Runs) -> None:
        code, stderr = pspd("server", "--config", "/dev/zero")
        assert (code, runs.given) == (2, [])
        assert stderr.startswith("pspd server: error: cannot read /dev/zero: it has more than 64.0 KiB: ")

    def test_config_that_is_no_text_ends_with_2(self, pspd: Pspd, runs: Runs, tmp_path: Path) -> None:
        path = tmp_path / "binary"
        path.write_bytes(b"\xff\xfe\x00")
        code, stderr = pspd("server", "--config", path)
        assert (code, runs.given) == (2, [])
        assert str(path) in stderr


def test_option_without_its_value_names_the_command(pspd: Pspd, runs: Runs) -> None:
    told = "pspd client: error: Option '--dir' requires an argument: try `pspd client --help`\n"
    assert pspd("client", "--dir") == (2, told)


@pytest.mark.parametrize(
    "arguments",
    [
        ("server", "--listen", "7070"),
        ("server", "--listen", "127.0.0.1:65536"),
        ("server", "--data-port", "65536"),
        ("server", "--cache", "0"),
        ("server", "--cache", "1023"),
        ("server", "--cache", "-5"),
        ("server", "--profile", "modern"),
        ("server", "--order", "alphabetic"),
        ("server", "--faults", "loss=2"),
        ("server", "--config", "/no/such/file"),
        ("server", "--reach", "nan"),
        ("server", "--reach", "inf"),
        ("server", "--state-dir", ""),
        ("server", "extra"),
        ("client", "--server", ":7070"),
        ("client", "--count", "0"),
        ("client", "--count", "1001"),
        ("client", "--count", "\u0663"),
        ("client", "--first-index", "-1"),
        ("client", "--first-index", "3"),
        ("client", "--dir", ""),
        ("client", "--connect-timeout", "nan"),
        ("client", "--connect-timeout", "\u0663"),
        ("client", "--connect-timeout", "-1"),
        ("client", "--faults", "delay=1"),
        ("agent", "--listen", "7070"),
        ("--no-such-option",),
        ("conquer",),
    ],
    ids=" ".join,
)
def test_bad_options_are_one_line_and_end_with_2(pspd: Pspd, runs: Runs, arguments: tuple[str, ...]) -> None:
    code, stderr = pspd(*arguments)
    assert code == 2
    assert ERROR_LINE.fullmatch(stderr), stderr
    assert not runs.given
    asked = f"pspd {arguments[0]}" if arguments[0] in COMMANDS else "pspd"
    assert stderr.startswith(f"{asked}: error: ")


INTERRUPT_AT_IMPORT = """
import signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupter())
from {program}.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(("program", "told"), [("pspd", ""), ("pspctl", "pspctl: error: interrupted\n")])
def test_interrupt_during_imports_has_no_traceback(program: str, told: str) -> None:
    code = INTERRUPT_AT_IMPORT.format(program=program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (130, told)


@pytest.mark.parametrize(("arguments", "code"), [(("server", "--cache", "0"), 2), (("--version",), 0)], ids=str)
def test_process_ends_with_the_code(arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pspd", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
