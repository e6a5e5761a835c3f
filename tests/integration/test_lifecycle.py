"""Starting and stopping daemons, and errors that prevent a start."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.daemons import Network
from tests.support.files import random_file

STOP_SECONDS = 5
IMMEDIATE_STOP_SECONDS = 2


def test_ready_lines_tell_addresses(network: Network) -> None:
    server = network.server()
    assert server.ready_line["role"] == "server"
    host, _, port = server.ready_line["listen"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert server.ready_line["data_port"] > 0
    client = network.client("a")
    assert (client.ready_line["role"], client.ready_line["names"]) == ("client", ["a"])
    assert client.ready_line["server"] == server.ready_line["listen"]


def test_several_clients_in_one_process(network: Network, tmp_path: Path) -> None:
    network.server()
    client = network.client("many", "--count", 4)
    assert client.ready_line["names"] == [f"many-{index}" for index in range(4)]
    source = random_file(tmp_path / "file.bin", 500_000)
    network.ctl("seed", source, "--clients", 4, "--wait")
    network.await_copies(source, [f"many/many-{index}" for index in range(4)])


def test_signal_ends_daemons_cleanly(network: Network, tmp_path: Path) -> None:
    server = network.server()
    first, second = network.client("a"), network.client("b")
    network.ctl("seed", random_file(tmp_path / "file.bin", 100_000), "--clients", 2, "--wait")
    first.signal(signal.SIGTERM)
    assert first.wait(STOP_SECONDS) == 0
    second.signal(signal.SIGINT)
    assert second.wait(STOP_SECONDS) in (0, 130)
    assert not [client for client in network.status()["clients"] if client["state"] == "connected"]
    assert server.stop(STOP_SECONDS) == 0
    for daemon in (server, first, second):
        assert "Traceback" not in daemon.log_text()


def test_daemons_end_during_a_transfer(network: Network, tmp_path: Path) -> None:
    server = network.server()
    client = network.client("a")
    network.client("b")
    network.ctl("seed", random_file(tmp_path / "file.bin", 40_000_000), "--clients", 2)
    assert client.stop(STOP_SECONDS) == 0
    assert server.stop(STOP_SECONDS) == 0


def test_second_signal_ends_client_at_once(network: Network) -> None:
    """If the server hangs, a client cannot leave its session; a second signal ends the client."""
    server = network.server()
    client = network.client("a")
    server.signal(signal.SIGSTOP)

    def ended() -> bool:
        client.signal(signal.SIGTERM)
        return not client.alive

    try:
        network.until("the client has ended", ended, IMMEDIATE_STOP_SECONDS)
    finally:
        server.signal(signal.SIGCONT)


def test_clients_outlive_the_server(network: Network, tmp_path: Path) -> None:
    before = network.server()
    client = network.client("a")
    assert before.stop() == 0
    network.restarted_server(before)

    def back() -> bool:
        clients = network.status()["clients"]
        return [(each["name"], each["state"]) for each in clients] == [("a", "connected")]

    network.until("the client is back", back)
    assert client.alive
    source = random_file(tmp_path / "file.bin", 100_000)
    network.ctl("seed", source, "--wait")
    network.await_copies(source, "a")


def test_clients_are_launched_and_stopped(network: Network, tmp_path: Path) -> None:
    server = network.server()
    names = network.json("launch", 2, "--dir", tmp_path / "launched")["names"]
    assert len(names) == 2
    source = random_file(tmp_path / "file.bin", 100_000)
    network.ctl("seed", source, "--clients", 2, "--wait")
    for name in names:
        assert (tmp_path / "launched" / name / "file.bin").read_bytes() == source.read_bytes()
    network.ctl("stop", names[0])
    network.until("one has left", lambda: connected(network) == [names[1]])
    network.ctl("stop", "--all-clients")
    network.until("all have left", lambda: connected(network) == [])
    network.ctl("stop", "--server")
    assert server.wait(STOP_SECONDS) == 0


def test_sole_holder_is_not_stopped(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", 300_000)
    network.ctl("seed", source, "--clients", 3, "--hold")
    for refused in (["c0"], ["c0", "c1", "--drain", "--timeout", "0.5"], ["--all-clients"]):
        done = network.ctl("stop", *refused, code=6 if "--drain" in refused else 4)
        assert "nobody else holds" in done.stderr
    assert connected(network) == names
    network.ctl("stop", "c0", "--force")
    network.until("it has left", lambda: connected(network) == names[1:])
    network.until("its share is missed", lambda: network.file("file.bin")["state"] == "stalled")


def test_drain_waits_until_share_is_distributed(network: Network, tmp_path: Path) -> None:
    network.server()
    names = network.clients(3)
    source = random_file(tmp_path / "file.bin", 300_000)
    network.ctl("seed", source, "--clients", 3, "--hold")
    with network.start_ctl("stop", "c0", "--drain") as drain:
        network.ctl("release", "file.bin")
        assert drain.wait(60) == 0
    network.await_copies(source, names)


def test_drain_ends_when_all_others_declined(network: Network, tmp_path: Path) -> None:
    network.server()
    network.clients(2)
    (network.folder / "c1" / "file.bin").write_text("another")
    network.ctl("seed", random_file(tmp_path / "file.bin", 3000))
    done = network.ctl("stop", "c0", "--drain", code=4)
    assert "no other client accepts 'file.bin': c1 declined it: " in done.stderr


def test_agent_launches_clients(network: Network, tmp_path: Path) -> None:
    network.server()
    agent = network.agent()
    names = network.json("launch", 2, "--dir", tmp_path / "launched", "--on", agent.ready_line["listen"])["names"]
    network.until("both have joined", lambda: connected(network) == sorted(names))
    assert agent.stop(STOP_SECONDS) == 0


def connected(network: Network) -> list[str]:
    """Return the names of the connected clients."""
    return sorted(client["name"] for client in network.status()["clients"] if client["state"] == "connected")


BAD_ARGUMENTS = [
    ("server", "--listen", "7070"),
    ("server", "--listen", "127.0.0.1:99999"),
    ("server", "--data-port", "-1"),
    ("server", "--cache", "0"),
    ("server", "--cache", "a lot"),
    ("server", "--profile", "modern"),
    ("server", "--config", "/no/such/file"),
    ("client", "--server", ":7070"),
    ("client", "--server", "127.0.0.1:1", "--count", "0"),
    ("agent", "--listen", "hub:"),
    ("conquer",),
]


@pytest.mark.parametrize("args", BAD_ARGUMENTS, ids=" ".join)
def test_bad_arguments_end_with_2(network: Network, args: tuple[str, ...]) -> None:
    refused = network.pspd(*args, code=2)
    assert refused.stdout == ""
    assert refused.stderr.strip()


def test_bad_name_ends_with_2(network: Network) -> None:
    network.server()
    refused = network.pspd(
        "client", "--server", network.address, "--dir", network.folder / "a", "--name", "a/b", code=2
    )
    assert "a/b" in refused.stderr


def test_port_in_use_ends_with_4(network: Network) -> None:
    server = network.server()
    port, data_port = server.ready_line["listen"].rpartition(":")[2], server.ready_line["data_port"]
    state = ("--state-dir", network.folder / "other")
    refused = network.pspd("server", "--listen", f"127.0.0.1:{port}", "--data-port", 0, *state, code=4)
    assert port in refused.stderr
    refused = network.pspd("server", "--listen", "127.0.0.1:0", "--data-port", data_port, *state, code=4)
    assert str(data_port) in refused.stderr


def test_missing_server_ends_with_5(network: Network) -> None:
    where = ("--server", "127.0.0.1:1", "--dir", network.folder / "a", "--connect-timeout", 0.5)
    refused = network.pspd("client", *where, code=5)
    assert "127.0.0.1:1" in refused.stderr


def test_two_clients_do_not_share_a_folder(network: Network) -> None:
    network.server()
    network.client("a")
    folder = network.folder / "a"
    refused = network.pspd("client", "--server", network.address, "--dir", folder, "--name", "b", code=None)
    assert refused.returncode != 0
    assert str(folder) in refused.stderr


def test_unwritable_folder_is_reported_before_ready(network: Network, tmp_path: Path) -> None:
    """A client with an unwritable folder ends before its ready line."""
    network.server()
    blocked = tmp_path / "file-not-folder"
    blocked.write_text("")
    refused = network.pspd("client", "--server", network.address, "--dir", blocked, "--name", "a", code=None)
    assert refused.returncode not in (0, None)
    assert refused.stdout == ""
    assert str(blocked) in refused.stderr
