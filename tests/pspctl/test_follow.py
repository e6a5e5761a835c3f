"""Waiting until a file is complete."""

from __future__ import annotations

from pspctl.api import ServerApi
from pspctl.completion import WaitPolicy, wait_until_complete
from pspctl.deadline import Deadline
from pspctl.outage import OutagePolicy
from pspctl.ui.progress import Progress
from pspd.v1 import status_service_pb2
from tests.pspctl.fakes import FakeServer, file


def test_wait_for_a_client_count_waits_for_reconnecting_client(fake: FakeServer) -> None:
    fake.files = [file(held=(8,))]
    fake.changes = [status_service_pb2.WatchStatusResponse(files=[file(held=held)]) for held in ((8,), (8, 6), (8, 8))]
    with ServerApi(fake.address) as api:
        outage = OutagePolicy(api, Deadline(10), Progress())
        view = wait_until_complete(outage, "big.iso", WaitPolicy(Deadline(10), client_count=2))
        assert view["complete_client_count"] == 2
        assert wait_until_complete(outage, "big.iso", WaitPolicy(Deadline(10)))["complete_client_count"] == 1
