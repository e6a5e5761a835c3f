"""Chooses one address of a server, for both control and data, and connects to this address."""

from __future__ import annotations

import asyncio
import contextlib

import grpc

from pspd.errors import PspError, TimedOut, Unreachable
from pspd.host.addresses import grpc_target, resolve
from pspd.net.dial import first_answering
from pspd.rpc.client.connection import Peer, open_channel
from pspd.rpc.client.member import MemberClient
from pspd.store.digests import blake3_digest
from pspd.text.addresses import Address, parse_address

DIAL_SECONDS = 4.0
"""How long the addresses may take to answer: time for three SYN packets (after 0, 1 and 3 s) if some are lost."""


class Route:
    """Chooses one address of a server, and keeps a channel to it. The members of one process share a route.

    If gRPC chose among the addresses of a name, it would not report its choice, and data might go to another address.

    Args:
        server: the address of the control API, as the user wrote it.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self._host, self._port = parse_address(server)
        self._connect_lock = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None
        self._address: Address = ("", 0)

    async def connect(self) -> tuple[grpc.aio.Channel, Address]:
        """Return a channel to the server and the server's address; both stay the same while the connection lasts.

        If there is no connection, resolve the name, and take the first address on which the control API answers.

        Raises:
            Unreachable: the name is unknown, or no address answers, or only another program or version does.
            TimedOut: the last address that accepted a connection did not answer the first call in time.
            PspError: the control API answered with an error.
        """
        async with self._connect_lock:
            if self._channel is None or self._channel.get_state() is not grpc.ChannelConnectivity.READY:
                await self.close()
                await self._choose_address()
            assert self._channel is not None
            return self._channel, self._address

    async def close(self) -> None:
        """Close the channel; calls that are under way fail."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _choose_address(self) -> None:
        untried = await asyncio.to_thread(resolve, self._host, self._port)
        failure: PspError = Peer(self.server).no_answer_error()
        while (address := await first_answering(untried, DIAL_SECONDS)) is not None:
            untried.remove(address)
            channel = open_channel(grpc_target([address]))
            try:
                await MemberClient(channel, self.server, blake3_digest).parameters()
                self._channel, self._address = channel, address
                return
            except (Unreachable, TimedOut) as error:
                failure = error
            finally:
                if self._channel is not channel:
                    with contextlib.suppress(Exception):
                        await channel.close()
        raise failure
