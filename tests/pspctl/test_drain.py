"""``pspctl stop --drain``: it ends when no other client can take the chunks."""

from __future__ import annotations

from typing import Any

import pytest

from pspd.errors import WrongState
from pspd.v1 import network_pb2
from tests.pspctl.conftest import Pspctl
from tests.pspctl.fakes import FakeServer, file


@pytest.fixture(autouse=True)
def refusing(fake: FakeServer) -> None:
    """Let the server refuse to stop clients, because they hold chunks that no other client has."""
    fake.stop_refusal = WrongState("nobody else holds 4 chunks of 'big.iso'")


def stalled(*missing: str, given_up: bool = True) -> Any:
    lost = [network_pb2.MissingClient(name=name, away_seconds=40, given_up=given_up) for name in missing]
    return file(held=(4,), state=network_pb2.FILE_STATE_STALLED, missing_clients=lost)


def test_drain_ends_when_all_others_declined(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(held=(8,))]
    fake.files[0].clients.add(name="bert", refusal="no space left")
    result = pspctl("stop", "client-0", "--drain")
    assert result.exit_code == 4
    assert "no other client accepts 'big.iso': bert declined it: no space left: resolve this" in result.stderr


@pytest.mark.parametrize("which", ["client-0", "--all-clients"])
def test_drain_ends_when_all_others_are_lost(pspctl: Pspctl, fake: FakeServer, which: str) -> None:
    fake.files = [stalled("bert")]
    result = pspctl("stop", which, "--drain")
    assert result.exit_code == 4
    assert "all other clients of 'big.iso' are lost: bert (lost 40.0 s ago)" in result.stderr


def test_drain_waits_for_clients_that_may_return(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [stalled("bert", given_up=False)]
    assert pspctl("stop", "client-0", "--drain", "--timeout", "0.1").exit_code == 6


def test_drain_notes_held_file(pspctl: Pspctl, fake: FakeServer) -> None:
    fake.files = [file(state=network_pb2.FILE_STATE_SEEDED, held_back=True)]
    result = pspctl("stop", "client-0", "--drain", "--timeout", "0.1")
    assert result.exit_code == 6
    assert "pspctl: big.iso: held back: start it with `pspctl release big.iso`" in result.stderr.splitlines()
