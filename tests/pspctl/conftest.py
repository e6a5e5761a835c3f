"""A fake server on a real port, and ``pspctl`` that talks to it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pspctl import outage
from pspctl.main import cli
from pspctl.options import SERVER_VARIABLE
from pspd.daemon.source import SeedProgress
from pspd.v1 import client_service_pb2_grpc
from tests.pspctl import fakes

import_module("pspctl.commands.run")  # before a test replaces the source

Pspctl = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[fakes.FakeServer]:
    """Start a fake server."""
    fake = fakes.FakeServer()
    server, fake.address = fakes.start_server(fakes.register_all(fake))
    yield fake
    server.stop(grace=None).wait()


@pytest.fixture
def start_agent() -> Iterator[Callable[[], tuple[fakes.AgentServicer, str]]]:
    """Return a function that starts a fake agent and returns it with its address."""
    servers = []

    def start() -> tuple[fakes.AgentServicer, str]:
        servicer = fakes.AgentServicer()
        server, address = fakes.start_server(
            lambda server: client_service_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server)
        )
        servers.append(server)
        return servicer, address

    yield start
    for server in servers:
        server.stop(grace=None).wait()


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the contexts and the server of the user who runs the tests."""
    folder = tmp_path / "config"
    monkeypatch.setenv("PSPCTL_CONFIG_DIR", str(folder))
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    return folder


@pytest.fixture
def lone_pspctl() -> Pspctl:
    """Return a function that runs ``pspctl`` without a server address."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def pspctl(fake: fakes.FakeServer, lone_pspctl: Pspctl, monkeypatch: pytest.MonkeyPatch) -> Pspctl:
    """Return a function that runs ``pspctl`` against the fake server."""
    monkeypatch.setenv(SERVER_VARIABLE, fake.address)
    return lone_pspctl


@pytest.fixture
def no_outage_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands fail at once when the server is lost."""
    monkeypatch.setattr(outage, "OUTAGE_SECONDS_MAX", 0.0)


@dataclass
class FakeSource:
    """A fake of `pspd.daemon.source`: it adds its file to the fake server."""

    fake: fakes.FakeServer
    file: Any = field(default_factory=fakes.file)
    steps: list[SeedProgress] = field(
        default_factory=lambda: [SeedProgress("hashing", 8192, 8192), SeedProgress("seeding", 8, 8)]
    )
    stays: bool = False
    is_interrupted: bool = False
    refusal: Exception | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    has_left: bool = False

    async def seed(
        self, server: str, path: Path, *, on_progress: Callable[[SeedProgress], None], **arguments: Any
    ) -> bytes:
        import asyncio

        self.arguments = {"server": server, "path": path, **arguments}
        for step in self.steps:
            on_progress(step)
        try:
            if self.is_interrupted:
                signal.raise_signal(signal.SIGINT)
            if self.stays or self.is_interrupted:
                await asyncio.Event().wait()
        finally:
            self.has_left = True
        if self.refusal:
            raise self.refusal
        if self.file not in self.fake.files:
            self.fake.files.append(self.file)
        file_id: bytes = self.file.file_id
        return file_id


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Install Python's own handler for SIGINT, which a daemon that ran in this process may have replaced."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def source(default_interrupt: None, fake: fakes.FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeSource:
    """Replace the source that ``seed`` and ``run`` import."""
    source = FakeSource(fake)
    module = ModuleType("pspd.daemon.source")
    module.seed = source.seed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pspd.daemon.source", module)
    return source
