"""The clients of one process: their names and folders, and how they run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pspd.core.model.parameters import FAST
from pspd.daemon.client.daemon import ClientPlan, plan_clients, run_clients
from pspd.errors import BadArgument, StorageError, Unreachable
from tests.daemon.members import in_process
from tests.support.loops import on_loop, until

FOLDER = Path("/srv/files")


def test_single_client_uses_the_folder_itself() -> None:
    assert plan_clients("host", FOLDER, None, 0) == [ClientPlan("host", FOLDER)]
    assert plan_clients("host", FOLDER, None, 5) == [ClientPlan("host", FOLDER)]


@pytest.mark.parametrize(
    ("count", "first_index", "names"), [(1, 0, ["host-0"]), (3, 0, ["host-0", "host-1", "host-2"]), (1, 9, ["host-9"])]
)
def test_several_clients_get_numbered_folders(count: int, first_index: int, names: list[str]) -> None:
    assert plan_clients("host", FOLDER, count, first_index) == [ClientPlan(name, FOLDER / name) for name in names]


@on_loop
async def test_ready_line_waits_for_all_and_stop_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with in_process(FAST) as network:
        stopping, plans = asyncio.Event(), plan_clients("many", tmp_path, 3, 0)
        running = asyncio.ensure_future(run_clients(stopping, network.address, plans, 5, None))
        output = ""

        def ready() -> bool:
            nonlocal output
            output += capsys.readouterr().out
            return bool(output) or running.done()

        await until("they are ready", ready)
        names = ["many-0", "many-1", "many-2"]
        await until("all are heard", lambda: network.connected() == names)
        line = json.loads(output)
        assert (line["ready"], line["role"], line["names"]) == (True, "client", names)
        assert line["server"] == network.address
        stopping.set()
        await running
        assert network.connected() == []


@on_loop
async def test_missing_server_is_reported_in_time(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        await run_clients(asyncio.Event(), "127.0.0.1:1", plan_clients("a", tmp_path, None, 0), 0, None)


@on_loop
async def test_one_refused_client_ends_all(tmp_path: Path) -> None:
    async with in_process(FAST) as network:
        plans = [ClientPlan("good", tmp_path / "good"), ClientPlan("a/b", tmp_path / "bad")]
        with pytest.raises(BadArgument, match="a/b"):
            await run_clients(asyncio.Event(), network.address, plans, 5, None)


@on_loop
async def test_unusable_folder_ends_before_joining(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    async with in_process(FAST) as network:
        with pytest.raises(StorageError, match="file"):
            await run_clients(asyncio.Event(), network.address, [ClientPlan("a", blocked)], 5, None)
        assert network.connected() == []
