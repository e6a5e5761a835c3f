"""A watcher of the status is sent a snapshot, then changes."""

from __future__ import annotations

from pspd.rpc.server.status_messages import status_change
from pspd.v1 import network_pb2, status_service_pb2


def status(*names: str, files: tuple[str, ...] = ()) -> status_service_pb2.GetStatusResponse:
    return status_service_pb2.GetStatusResponse(
        clients=[network_pb2.Client(name=name) for name in names],
        files=[network_pb2.File(file_id=name.encode(), name=name) for name in files],
    )


def test_snapshot_first_then_changes() -> None:
    first = status_change(None, status("a"))
    assert first is not None
    assert first.snapshot
    then = status_change(status("a"), status("a", "b"))
    assert then is not None
    assert not then.snapshot
    assert [client.name for client in then.clients] == ["b"]
    assert status_change(status("a"), status("a")) is None


def test_snapshot_again_after_a_removal() -> None:
    for seen, now in (
        (status("a", "b"), status("a")),
        (status("a", files=("f", "g")), status("a", files=("g",))),
        (status("a", files=("f",)), status("a")),
    ):
        change = status_change(seen, now)
        assert change is not None
        assert change.snapshot
        assert change.clients == now.clients
        assert change.files == now.files
