"""Starts a gRPC server with given services, health checks and reflection."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pspd.errors import PortTaken
from pspd.reflection_v1 import reflection_pb2 as reflection_v1_pb2
from pspd.rpc.conventions import channel_options
from pspd.rpc.limits import LARGEST_REQUEST_BYTES
from pspd.rpc.server.requests import RequestChecker
from pspd.text.addresses import Address, address_text

_REFLECTION_V1 = reflection_v1_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name

# The keepalive timeout is long: on a network full of deliveries, a ping and its TCP retransmissions may take seconds.
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
    ("grpc.http2.max_ping_strikes", 0),
]


async def serve(
    hosts: Sequence[str], port: int, services: list[str], register: Callable[[grpc.aio.Server], None]
) -> tuple[grpc.aio.Server, int]:
    """Start a server; return it and its port.

    Args:
        hosts: the hosts to listen on, as literals.
        port: the port on each of them; with a single host, 0 for any free port.
        services: the names of the services, for health checks and reflection.
        register: called with the server, to add the services to it.

    Raises:
        PortTaken: an address cannot be used.
    """
    server = grpc.aio.server(
        interceptors=[RequestChecker()], options=[*channel_options(LARGEST_REQUEST_BYTES), *_OPTIONS]
    )
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _enable_reflection([*services, health.SERVICE_NAME], server)
    bound = [_bind(server, (host, port)) for host in hosts]
    await server.start()
    for name in ["", *services]:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, bound[0]


def _enable_reflection(services: list[str], server: grpc.aio.Server) -> None:
    """Serve reflection as v1, and as v1alpha for older tools.

    The library implements only v1alpha. Both versions have the same messages on the wire, so the library's servicer
    answers v1 too.

    Args:
        services: the names of the services.
        server: the server.
    """
    names = [*services, reflection.SERVICE_NAME, _REFLECTION_V1]
    reflection.enable_server_reflection(names, server)
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": method}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_REFLECTION_V1, handlers),))


def _bind(server: grpc.aio.Server, address: Address) -> int:
    shown = address_text(address)
    with contextlib.suppress(RuntimeError):
        if bound := server.add_insecure_port(shown):
            return bound
    raise PortTaken(
        f"cannot listen on {shown}: the port is taken, or the address is not one of this machine: choose another"
    )
