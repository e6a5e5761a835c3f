"""``pspctl wait`` and ``pspctl release``."""

from __future__ import annotations

import json

from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer, file


def test_wait_returns_when_every_client_has_the_file(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=held)]) for held in ((8, 6), (8, 8))]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "complete on 2 of 2 clients: seeded in 0.5 s, exchanged in 1.5 s at 0.0 MiB/s" in result.stdout


def test_wait_answers_in_json(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(held=(8, 8))]
    document = json.loads(pspctl("wait", "big.iso", "-o", "json").stdout)
    assert document["schema_version"] == 1
    assert document["file"]["state"] == "complete"
    assert document["seconds"] == {"seeding": 0.5, "exchange": 1.5}


def test_wait_times_out_and_says_how_far_it_is(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [file(held=(8, 2))], True
    result = pspctl("wait", "big.iso", "--timeout", "1")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "pspctl: error: big.iso was not complete after 1 s: distributing, 62.5 %, 1 of 2 clients have it\n"
    )


def test_wait_says_what_a_stalled_file_lacks_until_it_goes_on(pspctl: Pspctl, fake: FakeServer) -> None:
    missing = [network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=8))]
    fake.files = [file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=missing)]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=(8, 8))])]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert result.stderr == (
        "pspctl: big.iso is stalled: chunks [0, 8) have no connected holder,"
        " never held by a client: seed the file again\n"
    )
    for option in (["-q"], ["-o", "json"]):
        assert pspctl("wait", "big.iso", *option).stderr == ""


def test_wait_ends_when_the_server_does(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 5
    assert result.stderr.startswith(f"pspctl: error: the server at {fake.address} stopped")


def test_release(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    assert pspctl("release", "big.iso").stdout == "big.iso: the exchange has started\n"
    assert json.loads(pspctl("release", "big.iso", "-o", "json").stdout)["file"]["name"] == "big.iso"
    assert fake.asked["ReleaseFileRequest"].file == "big.iso"
