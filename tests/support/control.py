"""A control API in the test process: the real services on a real port, in front of a real or fake network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from pspd.core.model.parameters import Parameters, default_cache_chunks
from pspd.core.model.tuning import SERVER_TUNING, ServerTuning
from pspd.daemon.agent import AgentServicer
from pspd.daemon.server.network import NetworkDaemon
from pspd.daemon.server.services import SERVICES, register
from pspd.daemon.spawn import Launcher
from pspd.rpc.client.connection import open_channel
from pspd.rpc.server.server import serve
from pspd.v1 import client_service_pb2_grpc

HOST = "127.0.0.1"


def register_all(server: grpc.aio.Server, network: Any) -> None:
    """Add every service of a network, real or fake, to a gRPC server."""
    register(server, network)
    client_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentServicer(Launcher()), server)


@asynccontextmanager
async def control(network: Any) -> AsyncIterator[tuple[grpc.aio.Channel, str]]:
    """Serve a network, real or fake; yield a channel to it and its address."""
    server, port = await serve([HOST], 0, SERVICES, lambda server: register_all(server, network))
    address = f"{HOST}:{port}"
    channel = open_channel(address)
    try:
        yield channel, address
    finally:
        await channel.close()
        await server.stop(None)


@asynccontextmanager
async def running_network(
    parameters: Parameters,
    tuning: ServerTuning = SERVER_TUNING,
) -> AsyncIterator[tuple[NetworkDaemon, grpc.aio.Channel, str]]:
    """Run a server daemon with its control API; yield the daemon, a channel to it and its address."""
    cache_chunks = default_cache_chunks(parameters)
    network = NetworkDaemon(parameters, cache_chunks, [HOST], 0, asyncio.Event(), tuning=tuning)
    try:
        async with control(network) as (channel, network.address):
            yield network, channel, network.address
    finally:
        await network.close()
