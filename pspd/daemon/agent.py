"""``pspd agent``: launches clients on its machine when asked."""

from __future__ import annotations

import asyncio
from functools import partial

from pspd.daemon.process import write_ready_line
from pspd.daemon.spawn import Launcher
from pspd.net.sockets import resolve_listen_hosts
from pspd.rpc.server.requests import Context
from pspd.rpc.server.server import serve
from pspd.text.addresses import AGENT_PORT, address_text, parse_address
from pspd.v1 import client_service_pb2, client_service_pb2_grpc

STOP_GRACE_SECONDS = 0.5


class AgentServicer(client_service_pb2_grpc.AgentServiceServicer):
    """Launches clients on the machine where the agent runs."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    async def LaunchClients(
        self, request: client_service_pb2.AgentServiceLaunchClientsRequest, context: Context
    ) -> client_service_pb2.AgentServiceLaunchClientsResponse:
        """Launch clients; return their names. Implements `AgentService.LaunchClients`."""
        names = await self._launcher.launch(request.count, request.dir, request.server)
        return client_service_pb2.AgentServiceLaunchClientsResponse(names=names)


async def run_agent(stopping: asyncio.Event, listen: str) -> None:
    """Run the agent until it is asked to stop; then stop its clients.

    Args:
        stopping: the event that is set to stop the agent.
        listen: the address of the agent's control API.

    Raises:
        PortTaken: the address cannot be used.
    """
    host, port = parse_address(listen, AGENT_PORT)
    hosts, port = resolve_listen_hosts(host, port)  # first, as gRPC does not say why it cannot use an address
    launcher = Launcher()
    register = partial(client_service_pb2_grpc.add_AgentServiceServicer_to_server, AgentServicer(launcher))
    server, bound = await serve(hosts, port, ["pspd.v1.AgentService"], register)
    try:
        write_ready_line(role="agent", listen=address_text((host, bound)))
        await stopping.wait()
    finally:
        await server.stop(STOP_GRACE_SECONDS)
        await launcher.stop()
