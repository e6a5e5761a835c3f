"""The messages for the server and its files, with the fields that `StatusMessages` adds."""

from __future__ import annotations

from pspd.core.model.parameters import SECOND_NS
from pspd.core.wire.header import DropReason
from pspd.daemon.server.status import DeliveryRates, StatusMessages
from pspd.net.driver import now_ns
from pspd.v1 import network_pb2
from tests.core.bench import Bench
from tests.support.loops import on_loop


@on_loop
async def test_every_field_of_the_server_is_filled() -> None:
    machine = Bench().server
    machine.drop_counts[DropReason.TOO_SHORT] += 1
    status = StatusMessages(machine, 7071)
    server = status.network("10.0.0.1:7070", "", with_clients=False).server
    status.close()
    assert {field.name for field, _ in server.ListFields()} == set(network_pb2.Server.DESCRIPTOR.fields_by_name)
    assert dict(server.dropped_counts) == {"too_short": 1}


@on_loop
async def test_rate_and_time_left_of_a_file_are_filled() -> None:
    bench = Bench()
    bench.join("a")
    file = bench.seed("f", 4)
    status = StatusMessages(bench.server, 7071)
    status.close()
    status._rates = DeliveryRates()
    status._rates.sample([file], now_ns() - SECOND_NS)
    file.traffic.delivered_bytes = 1024
    message = status.file(file)
    assert message.HasField("rate_bytes_per_second")
    assert message.HasField("eta_seconds")
