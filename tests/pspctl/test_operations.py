"""``pspctl cache``, ``launch``, ``stop`` and ``version``."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata

import pytest

from pspd.v1 import network_pb2
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import AgentServicer, FakeServer, client

StartAgent = Callable[[], tuple[AgentServicer, str]]


@pytest.mark.parametrize("command", [["cache"], ["cache", "show"]], ids=" ".join)
def test_cache_shows_the_cache(pspctl: Pspctl, command: list[str]) -> None:
    assert pspctl(*command).stdout == (
        "cache 8.0 KiB of 64.0 MiB used, hit ratio 75.0 %, highest use 0 B; 3 hits, 1 miss, 0 aggregated, 0 evicted\n"
    )
    document = json.loads(pspctl(*command, "-o", "json").stdout)
    assert document["schema_version"] == 1
    assert document["cache"]["capacity_bytes"] == 64 << 20


def test_cache_clear_counts_dropped_chunks(pspctl: Pspctl, fake: FakeServer) -> None:
    assert pspctl("cache", "clear").stdout == "dropped 8 chunks\n"
    assert json.loads(pspctl("cache", "clear", "-o", "json").stdout)["dropped_chunk_count"] == 8
    fake.dropped_chunk_count = 1
    assert pspctl("cache", "clear").stdout == "dropped 1 chunk\n"


@pytest.mark.parametrize(("text", "size_bytes"), [("100KiB", 102400), ("1024", 1024), ("auto", 2048)])
def test_cache_resize_sets_capacity(pspctl: Pspctl, fake: FakeServer, text: str, size_bytes: int) -> None:
    fake.clients += [client("s", source=True), client("gone", state=network_pb2.CLIENT_STATE_LOST)]
    assert pspctl("cache", "resize", text).exit_code == 0
    assert fake.last_requests["ResizeCacheRequest"].capacity_bytes == size_bytes


def test_cache_resize_auto_needs_a_client(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.clients = []
    assert pspctl("cache", "resize", "auto").exit_code == 4


def test_launch_starts_clients_on_server_machine(pspctl: Pspctl, fake: FakeServer) -> None:
    assert pspctl("launch", 2, "--dir", "/data").stdout == (
        f"launched-0 started by {fake.address}, below /data\nlaunched-1 started by {fake.address}, below /data\n"
    )
    request = fake.last_requests["LaunchClientsRequest"]
    assert (request.count, request.dir) == (2, "/data")
    assert "below its default folder" in pspctl("launch", 1).stdout
    assert json.loads(pspctl("launch", 1, "-o", "json").stdout)["clients"] == [
        {"name": "launched-0", "address": fake.address, "dir": ""}
    ]


def test_launch_spreads_clients_over_agents(pspctl: Pspctl, fake: FakeServer, start_agent: StartAgent) -> None:
    (first, first_address), (second, second_address) = start_agent(), start_agent()
    result = pspctl("launch", 3, "--on", first_address, "--on", second_address, "-o", "json")
    assert len(json.loads(result.stdout)["names"]) == 3
    assert sorted(request.count for agent in (first, second) for request in agent.requests) == [1, 2]
    assert {request.server for agent in (first, second) for request in agent.requests} == {fake.address}


def test_launch_uses_no_more_agents_than_clients(pspctl: Pspctl, start_agent: StartAgent) -> None:
    agents = [start_agent() for _ in range(3)]
    options = [option for _, address in agents for option in ("--on", address)]
    assert len(pspctl("launch", 1, *options).stdout.splitlines()) == 1
    assert sum(len(agent.requests) for agent, _ in agents) == 1


def test_launch_error_names_clients_started_before(pspctl: Pspctl, start_agent: StartAgent) -> None:
    _, address = start_agent()
    result = pspctl("launch", 2, "--on", address, "--on", "127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "no agent answers at 127.0.0.1:1" in result.stderr
    assert "started before: agent-client-1-0" in result.stderr


@pytest.mark.parametrize("count", ["0", "4294967296"])
def test_launch_refuses_impossible_count(pspctl: Pspctl, count: str) -> None:
    result = pspctl("launch", count)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{count} is not in the range" in result.stderr


def test_launch_through_agent_refuses_loopback_server(pspctl: Pspctl) -> None:
    result = pspctl("launch", 2, "--on", "elsewhere:7072")
    assert result.exit_code == 2
    assert "give the server's outside address with --server" in result.stderr


def test_stop_names_stopped_clients(pspctl: Pspctl, fake: FakeServer) -> None:
    assert pspctl("stop", "client-1").stdout == "client-1 is stopping\n"
    assert pspctl("stop", "--all-clients").stdout == "client-0 is stopping\nclient-1 is stopping\n"
    assert "StopServerRequest" not in fake.last_requests


def test_stop_clients_of_named_server(lone_pspctl: Pspctl, fake: FakeServer) -> None:
    for arguments in (["client-1", "--server", fake.address], ["--server", fake.address, "client-1"]):
        document = json.loads(lone_pspctl("stop", *arguments, "-o", "json").stdout)
        assert (document["names"], document["server_stopped"]) == (["client-1"], False)
    assert "StopServerRequest" not in fake.last_requests


def test_stop_server_stops_named_server(lone_pspctl: Pspctl, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (
        ["--server", fake.address, "stop", "--server"],
        ["stop", "--server", fake.address],
        ["stop", "--server", "--server", fake.address],
    ):
        fake.last_requests.clear()
        assert lone_pspctl(*arguments).stdout == f"the server at {fake.address} is stopping\n"
        assert "StopServerRequest" in fake.last_requests
        assert "StopClientsRequest" not in fake.last_requests
    monkeypatch.setenv("PSPCTL_SERVER", fake.address)
    assert "is stopping" in lone_pspctl("stop", "--all-clients", "--server").stdout


def test_version_shows_both_programs(pspctl: Pspctl) -> None:
    assert json.loads(pspctl("version", "-o", "json").stdout) == {
        "schema_version": 1,
        "pspctl": metadata.version("psp-network"),
        "server": "9.9.9",
    }


def test_version_option_shows_own_version(lone_pspctl: Pspctl) -> None:
    assert lone_pspctl("--version").stdout == f"pspctl {metadata.version('psp-network')}\n"


def test_version_needs_no_server(lone_pspctl: Pspctl) -> None:
    result = lone_pspctl("version", "--server", "127.0.0.1:1")
    assert result.exit_code == 0
    assert "server unknown: no server answers" in result.stdout
    document = json.loads(lone_pspctl("version", "--server", "127.0.0.1:1", "-o", "json").stdout)
    assert document["server"] is None
