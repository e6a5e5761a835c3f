"""``pspd server``: starts the server, and stops it on request."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from pspd.core.model.parameters import SECOND_NS, Parameters
from pspd.core.model.tuning import SERVER_TUNING
from pspd.daemon.process import write_ready_line
from pspd.daemon.server.ledger import Ledger, prepare_folder
from pspd.daemon.server.network import NetworkDaemon
from pspd.daemon.server.services import SERVICES, register
from pspd.errors import BadArgument
from pspd.net.faults import Faults
from pspd.net.sockets import resolve_listen_hosts
from pspd.rpc.server.server import serve
from pspd.text.addresses import PORT_MAX, address_text, parse_address

STOP_GRACE_SECONDS = 0.5

log = logging.getLogger(__name__)


async def run_server(
    stopping: asyncio.Event,
    listen: str,
    data_port: int | None,
    state_dir: Path,
    parameters: Parameters,
    cache_chunks: int | None,
    faults: Faults | None,
    reachability_seconds: float,
) -> None:
    """Run the server until it is asked to stop.

    Args:
        stopping: the event that is set to stop the server.
        listen: the address of the control API.
        data_port: the UDP and TCP port for data; None for the control port + 1, 0 for any free one.
        state_dir: the folder for the server's state.
        parameters: the protocol's parameters.
        cache_chunks: the size of the cache, in chunks; None for a cache that grows with the number of clients.
        faults: the faults to inject into received datagrams; None for none.
        reachability_seconds: how long a member stays reachable after its last confirmation that datagrams arrive;
            longer with many members.

    Raises:
        BadArgument: both ports are the same, or no port follows the control port.
        LimitReached: this machine has too little memory for the cache.
        PortTaken: an address cannot be used.
        StorageError: the state folder cannot be used.
    """
    host, port = parse_address(listen)
    prepare_folder(state_dir)
    if data_port is None:
        data_port = port + 1 if port else 0
    if port and data_port == port:
        raise BadArgument(f"port {port} is the control port: choose another with --data-port")
    if data_port > PORT_MAX:
        raise BadArgument(f"there is no port after {port} for data: name one with --data-port")
    hosts, control_port = resolve_listen_hosts(host, port)  # first, as gRPC does not say why it cannot use an address
    tuning = replace(SERVER_TUNING, reachability_ns=int(reachability_seconds * SECOND_NS))
    network = NetworkDaemon(parameters, cache_chunks, hosts, data_port, stopping, faults, tuning)
    try:
        if port:
            network.use_ledger(_open_ledger(state_dir, port))
        server, bound = await serve(hosts, control_port, SERVICES, lambda server: register(server, network))
        network.address = address_text((host, bound))
        try:
            if not port:
                ledger = _open_ledger(state_dir, bound)
                ledger.clear()  # remove the records of an earlier server that had the same port by chance
                network.use_ledger(ledger)
            data_port, profile = network.data_port, parameters.profile
            log.info("control on %s, data on port %d, profile %s", network.address, data_port, profile)
            write_ready_line(role="server", listen=network.address, data_port=data_port)
            await stopping.wait()
            network.control.close_ledger()
        finally:
            await server.stop(STOP_GRACE_SECONDS)
    finally:
        await network.close()


def _open_ledger(state_dir: Path, port: int) -> Ledger:
    """Open the ledger for a control port. Servers that share a state folder have separate ledgers.

    Args:
        state_dir: the state folder.
        port: the control port.
    """
    return Ledger(state_dir / f"server-{port}.db")
