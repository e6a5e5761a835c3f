"""Every gRPC server also offers health and reflection, and reports the address that it listens on."""

from __future__ import annotations

import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from pspd.daemon.server.services import SERVICES
from pspd.errors import PortTaken
from pspd.reflection_v1 import reflection_pb2 as reflection_v1_pb2
from pspd.rpc.server.server import serve
from pspd.text.addresses import address_text
from tests.support.control import control
from tests.support.loops import on_loop

NOBODY = object()


@on_loop
async def test_health_answers_for_the_server_and_each_service() -> None:
    async with control(NOBODY) as (channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ["", *SERVICES]:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@on_loop
async def test_health_method_without_servicer_is_unimplemented(caplog: pytest.LogCaptureFixture) -> None:
    async with control(NOBODY) as (channel, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "Traceback" not in caplog.text


@on_loop
async def test_health_can_be_watched() -> None:
    async with control(NOBODY) as (channel, _):
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10):
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            break
        else:
            pytest.fail("no answer")


REFLECTIONS = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]


@pytest.mark.parametrize("package", REFLECTIONS)
@on_loop
async def test_reflection_names_and_describes_the_services(package: str) -> None:
    messages = reflection_pb2 if package.endswith("alpha") else reflection_v1_pb2
    async with control(NOBODY) as (channel, _):
        converse = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=messages.ServerReflectionRequest.SerializeToString,
            response_deserializer=messages.ServerReflectionResponse.FromString,
        )

        async def ask(**question: str) -> Any:
            return await converse(iter([messages.ServerReflectionRequest(**question)])).read()

        listed = (await ask(list_services="")).list_services_response.service
        names = {service.name for service in listed}
        assert names == {*SERVICES, "grpc.health.v1.Health", *(f"{name}.ServerReflection" for name in REFLECTIONS)}
        for name in names:
            described = await ask(file_containing_symbol=name)
            assert described.file_descriptor_response.file_descriptor_proto, name


def test_reflection_v1_has_the_messages_of_v1alpha() -> None:
    def fields(module: Any) -> dict[str, list[tuple[str, int, int, bool]]]:
        return {
            name: [(field.name, field.number, field.type, field.is_repeated) for field in message.fields]
            for name, message in module.DESCRIPTOR.message_types_by_name.items()
        }

    assert fields(reflection_v1_pb2) == fields(reflection_pb2)


@on_loop
@pytest.mark.parametrize("method", ["RenewLease", "Attend"])
async def test_unparsable_request_is_refused_without_a_log_line(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with control(NOBODY) as (channel, _):
        call = (channel.unary_stream if method == "Attend" else channel.unary_unary)(
            f"/pspd.v1.MembershipService/{method}"
        )(b"\xff garbage")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (call.read() if method == "Attend" else call)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a message of this API" in refused.value.details()
        assert caplog.text == ""


@on_loop
async def test_reported_port_is_the_bound_one() -> None:
    async with control(NOBODY) as (_, address):
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port)), 5):
            pass


@on_loop
async def test_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
            await serve(["127.0.0.1"], port, [], lambda _server: None)


@on_loop
async def test_two_servers_do_not_share_a_port() -> None:
    async with control(NOBODY) as (_, address):
        with pytest.raises(PortTaken, match=address):
            await serve(["127.0.0.1"], int(address.rpartition(":")[2]), [], lambda _server: None)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
@on_loop
async def test_foreign_address_is_refused(host: str) -> None:
    with pytest.raises(PortTaken) as refused:
        await serve([host], 0, [], lambda _server: None)
    assert address_text((host, 0)) in str(refused.value)


@on_loop
async def test_server_listens_on_ipv6() -> None:
    try:
        server, port = await serve(["::1"], 0, [], lambda _server: None)
    except PortTaken:
        pytest.skip("this machine has no IPv6")
    with socket.create_connection(("::1", port), 5):
        pass
    await server.stop(None)
