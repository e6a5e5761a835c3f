"""A gRPC server with our services, health and reflection."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pspd.config import parse_address
from pspd.errors import PortTaken
from pspd.rpc.conventions import CHANNEL_OPTIONS
from pspd.rpc.requests import ReadableRequests

# On a link that is full of deliveries a ping, and what TCP sends again of it, may take seconds.
_KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
    ("grpc.http2.max_ping_strikes", 0),
]


async def serve(
    listen: str, services: list[str], register: Callable[[grpc.aio.Server], None]
) -> tuple[grpc.aio.Server, str]:
    """Starts a server; ``register`` adds the services named. Returns it and the address it is bound to.

    Raises:
        PortTaken: the address cannot be had.
    """
    host, port = parse_address(listen)
    server = grpc.aio.server(interceptors=[ReadableRequests()], options=[*CHANNEL_OPTIONS, *_KEEPALIVE])
    register(server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [*services, health.SERVICE_NAME]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise PortTaken(f"cannot listen on {listen}: it is taken or not an address of this machine: choose another")
    await server.start()
    for name in ["", *services]:
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, f"{shown}:{bound}"
