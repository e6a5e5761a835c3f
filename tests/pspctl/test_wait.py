"""``pspctl wait``, ``pspctl release`` and ``pspctl rm``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pspctl import outage
from pspctl.api import ServerApi
from pspctl.deadline import Deadline
from pspctl.ui.progress import Progress
from pspd.errors import TimedOut, Unreachable
from pspd.v1 import network_pb2, status_service_pb2
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer, file


def test_wait_returns_when_every_client_has_file(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=held)]) for held in ((8, 6), (8, 8))]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "complete on 2 of 2 clients: seeded in 0.5 s, exchanged in 1.5 s\n" in result.stdout


def test_wait_answers_in_json(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(held=(8, 8))]
    document = json.loads(pspctl("wait", "big.iso", "-o", "json").stdout)
    assert document["schema_version"] == 1
    assert document["file"]["state"] == "complete"
    assert document["seconds"] == {"seeding": 0.5, "exchange": 1.5}


def test_wait_timeout_says_how_far_file_is(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [file(held=(8, 2))], True
    result = pspctl("wait", "big.iso", "--timeout", "1")
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "pspctl: error: big.iso was not complete after 1 s: distributing, 62.5 %, 1 of 2 clients have it\n"
    )


def test_wait_notes_missing_chunks_of_stalled_file(pspctl: Pspctl, fake: FakeServer) -> None:
    missing = [network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=8))]
    fake.files = [file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=missing)]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=(8, 8))])]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert result.stderr == (
        "pspctl: big.iso is stalled: chunks [0, 8) have no reachable holder,"
        " no earlier holder is known: seed the file again\n"
    )
    for option in (["-q"], ["-o", "json"]):
        assert pspctl("wait", "big.iso", *option).stderr == ""


@pytest.mark.usefixtures("no_outage_allowed")
def test_missing_chunks_are_grouped_by_last_holder(pspctl: Pspctl, fake: FakeServer) -> None:
    missing = [
        network_pb2.MissingRange(range=network_pb2.ChunkRange(start=start, stop=start + 1), last_holder=holder)
        for start, holder in ((0, ""), (2, "anna"), (4, ""), (6, ""), (7, "anna"))
    ]
    fake.files = [file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=missing)]
    assert pspctl("wait", "big.iso").stderr.splitlines()[0] == (
        "pspctl: big.iso is stalled: chunks [0, 1), [4, 5), [6, 7) have no reachable holder,"
        " no earlier holder is known: seed the file again;"
        " chunks [2, 3) have no reachable holder, last held by anna: start it again; and 1 more range"
    )


def test_last_holder_that_declined_is_named_with_reason(pspctl: Pspctl, fake: FakeServer) -> None:
    missing = network_pb2.MissingRange(range=network_pb2.ChunkRange(start=2, stop=3), last_holder="a-way")
    fake.files = [declined_file(state=network_pb2.FILE_STATE_STALLED, missing_ranges=[missing])]
    assert "last held by a-way, which declined it: no space left" in pspctl("status", "big.iso").stdout
    fake.files[0].missing_ranges[0].last_holder = ""
    text = pspctl("status", "big.iso").stdout
    assert "clients declined the file: resolve their reasons, then seed it again" in text
    assert "never held" not in text


def declined_file(**fields: Any) -> Any:
    """Return a file that two clients have and one declined."""
    found = file(held=(8, 8), **fields)
    found.clients.add(name="a-way", refusal="no space left")
    return found


def test_declining_client_is_reported_after_answer(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [declined_file()]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 4
    assert "complete on 2 of 2 clients, 1 declined: seeded" in result.stdout
    assert result.stderr == "pspctl: error: a-way declined it: no space left\n"
    result = pspctl("wait", "big.iso", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["file"]["declined_client_count"]) == (4, 1)
    lines = pspctl("status", "big.iso").stdout.splitlines()
    assert any("2/2, 1 declined" in line for line in lines)
    assert "a-way declined it: no space left" in lines
    assert [line.split()[0] for line in lines if line.split()[-1:] in (["yes"], ["declined"])] == [
        "a-way",
        "client-0",
        "client-1",
    ]
    assert all(line == line.rstrip() for line in lines)


def stalled_file(*, given_up: bool) -> Any:
    """Return a file whose chunks are missing because anna is lost."""
    missing = network_pb2.MissingRange(range=network_pb2.ChunkRange(start=0, stop=4), last_holder="anna")
    found = file(held=(4, 4), state=network_pb2.FILE_STATE_STALLED, missing_ranges=[missing])
    found.missing_clients.add(name="anna", away_seconds=31 if given_up else 2, given_up=given_up)
    return found


def test_wait_ends_if_last_holder_is_lost_for_a_lease(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [stalled_file(given_up=False)], True
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[stalled_file(given_up=True)])]
    result = pspctl("wait", "big.iso", "-q")
    assert result.exit_code == 4
    assert result.stderr == (
        "pspctl: error: big.iso is stalled: chunks [0, 4) have no reachable holder, last held by anna: start it again\n"
    )


def test_wait_with_timeout_waits_for_lost_holder(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [stalled_file(given_up=True)], True
    result = pspctl("wait", "big.iso", "--timeout", "1")
    assert result.exit_code == 6
    assert "was not complete after 1 s: stalled" in result.stderr


def test_wait_ends_if_every_client_declined(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [file(held=(), state=network_pb2.FILE_STATE_STALLED)], True
    fake.files[0].clients.add(name="anna", refusal="no space left")
    fake.files[0].clients.add(name="bert", refusal="another file is in the way")
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 4
    assert "is on no client, 2 declined" in result.stdout
    assert result.stderr.endswith(
        "pspctl: error: anna declined it: no space left; bert declined it: another file is in the way\n"
    )


def test_wait_notes_that_no_client_is_connected(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [file(held=(), state=network_pb2.FILE_STATE_DISTRIBUTING)], True
    result = pspctl("wait", "big.iso", "--timeout", "0.5")
    assert result.exit_code == 6
    assert result.stderr.startswith("pspctl: big.iso: no client is connected: waiting for one\n")


def test_wait_does_not_wait_for_lost_clients(pspctl: Pspctl, fake: FakeServer) -> None:
    lost = network_pb2.MissingClient(name="anna", away_seconds=1)
    fake.files = [file(held=(8, 8), missing_clients=[lost])]
    assert pspctl("wait", "big.iso").exit_code == 0


def file_without_clients(*, given_up: bool = False) -> Any:
    """Return a file whose only client is lost, as right after a restart of the server."""
    lost = network_pb2.MissingClient(name="anna", away_seconds=2, given_up=given_up)
    return file(held=(), state=network_pb2.FILE_STATE_SEEDING, missing_clients=[lost])


def test_wait_lets_clients_return_after_restart(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file_without_clients()]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=held)]) for held in ((8, 6), (8, 8))]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert "complete on 2 of 2 clients" in result.stdout


@pytest.mark.parametrize("options", [(), ("-o", "json"), ("-q",)], ids=["table", "json", "quiet"])
def test_wait_fails_if_all_clients_are_lost_for_a_lease(
    pspctl: Pspctl, fake: FakeServer, options: tuple[str, ...]
) -> None:
    fake.files = [file_without_clients()]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file_without_clients(given_up=True)])]
    result = pspctl("wait", "big.iso", *options)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == (
        "pspctl: error: big.iso did not reach anna (lost 2.0 s ago): start them again, and they get it"
    )


@pytest.mark.parametrize("given_up", [False, True])
def test_wait_for_lost_clients_ends_at_timeout(pspctl: Pspctl, fake: FakeServer, given_up: bool) -> None:
    fake.files, fake.stream_stays = [file_without_clients(given_up=given_up)], True
    result = pspctl("wait", "big.iso", "--timeout", "0.5")
    assert result.exit_code == 6
    assert "did not reach anna (lost 2.0 s ago) within 0.5 s" in result.stderr


@pytest.mark.parametrize(
    ("share_chunk_counts", "delivered_bytes", "has_rate"),
    [((4, 4), 8 << 20, True), ((8, 0), 8 << 20, False), ((4, 4), 2 << 20, False), ((4, 4), 17 << 20, False)],
    ids=["usual", "late joiner", "brought along", "much more"],
)
def test_rate_is_shown_only_for_comparable_exchange(
    pspctl: Pspctl, fake: FakeServer, share_chunk_counts: tuple[int, ...], delivered_bytes: int, has_rate: bool
) -> None:
    found = file(held=(8, 8), size_bytes=8 << 20, exchange_seconds=0.05)
    found.traffic.delivered_bytes = delivered_bytes
    for client, count in zip(found.clients, share_chunk_counts, strict=True):
        client.share_chunk_count = count
    fake.files = [found]
    text = pspctl("wait", "big.iso").stdout
    assert "exchanged in 50 ms" in text
    assert ("at 160.0 MiB/s" in text) == has_rate


def test_times_lost_by_a_restart_are_omitted(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(held=(8, 8), exchange_seconds=0.05)]
    fake.files[0].seeding_seconds = 0.0
    assert "complete on 2 of 2 clients: exchanged in 50 ms" in pspctl("wait", "big.iso").stdout
    fake.files[0].exchange_seconds = 0.0
    assert pspctl("wait", "big.iso").stdout.endswith("complete on 2 of 2 clients\n")


def test_wait_notes_held_file_at_once(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_stays = [file(name="my file", state=network_pb2.FILE_STATE_SEEDED, held_back=True)], True
    note, error = pspctl("wait", "my file", "--timeout", "0.50").stderr.splitlines()
    held = "held back: start it with `pspctl release 'my file'`"
    assert note == f"pspctl: my file: {held}"
    assert error == (
        f"pspctl: error: my file was not complete after 0.5 s: seeded (held), 37.5 %, 0 of 2 clients have it; {held}"
    )


@pytest.mark.usefixtures("no_outage_allowed")
def test_wait_ends_if_server_does_not_return(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 5
    assert result.stderr.splitlines() == [
        f"pspctl: lost the server at {fake.address}: waiting for it to come back",
        f"pspctl: error: the server at {fake.address} was lost and has not come back for 0 s:"
        " start it again with `pspd server`",
    ]


def test_outage_at_deadline_is_a_timeout(fake: FakeServer) -> None:
    with ServerApi(fake.address) as api:
        policy = outage.OutagePolicy(api, Deadline(0.01), Progress())
        policy.note_answer()
        policy.wait_and_reopen(Unreachable("gone"))
        with pytest.raises(TimedOut, match=r"was lost and has not come back for 0.01 s: start it again"):
            policy.wait_and_reopen(Unreachable("gone"))


def test_connection_broken_after_deadline_is_a_timeout(fake: FakeServer) -> None:
    fake.files, fake.stream_breaks = [file()], 1
    with ServerApi(fake.address) as api:
        deadline = Deadline(10)
        statuses = outage.follow_status(outage.OutagePolicy(api, deadline, Progress()))
        next(statuses)
        deadline._at = 0.0
        with pytest.raises(TimedOut):
            next(statuses)


@pytest.mark.usefixtures("no_outage_allowed")
def test_wait_continues_after_broken_connection(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files, fake.stream_breaks = [file()], 2
    result = pspctl("wait", "big.iso")
    assert fake.watch_count == 3
    assert f"pspctl: error: the server at {fake.address} was lost" in result.stderr


def test_wait_continues_after_server_restart(pspctl: Pspctl, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "RETRY_SECONDS", 0.0)
    fake.files_after_restarts = [[file()], [file()], [file(held=(8, 8))]]
    result = pspctl("wait", "big.iso")
    assert result.exit_code == 0
    assert result.stderr == 2 * f"pspctl: lost the server at {fake.address}: waiting for it to come back\n"


def test_release_starts_exchange(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    assert pspctl("release", "big.iso").stdout == "big.iso is no longer held back\n"
    assert json.loads(pspctl("release", "big.iso", "-o", "json").stdout)["file"]["name"] == "big.iso"
    assert fake.last_requests["ReleaseFileRequest"].file == "big.iso"


def test_rm_removes_files(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    assert pspctl("rm", "big.iso").stdout == "big.iso is removed\n"
    assert not fake.last_requests["RemoveFileRequest"].force
    removed = json.loads(pspctl("rm", "big.iso", "--force", "-o", "json").stdout)["files"]
    assert [each["name"] for each in removed] == ["big.iso"]
    assert fake.last_requests["RemoveFileRequest"].force


def test_rm_error_reports_files_removed_before(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file()]
    result = pspctl("rm", "big.iso", "big.iso", "nope")
    assert result.exit_code == 3
    assert result.stderr.startswith("pspctl: big.iso is removed\npspctl: error: ")
