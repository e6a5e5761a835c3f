"""A member's way to its server: one address, for control and data alike."""

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
"""Time for three packets that ask for a connection, after 0, 1 and 3 s, on a link that loses them."""


class Route:
    """Chooses one address of a server, and keeps a channel to it; members of one process share it.

    gRPC would try every address of a name by itself, and not tell which one answered: data might go to another.

    Args:
        server: the control API's address, as the user wrote it.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self._host, self._port = parse_address(server)
        self._choosing = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None
        self._address: Address = ("", 0)

    async def connect(self) -> tuple[grpc.aio.Channel, Address]:
        """Returns a channel to the server and its address, the same as before while that connection stands.

        Otherwise it resolves the name anew, and takes the first address on which the control API answers.

        Raises:
            Unreachable: the name is unknown, or no address answers.
            PspError: what answers is no server of ours.
        """
        async with self._choosing:
            if self._channel is None or self._channel.get_state() is not grpc.ChannelConnectivity.READY:
                await self.close()
                await self._choose()
            assert self._channel is not None
            return self._channel, self._address

    async def close(self) -> None:
        """Closes the channel; what still waits for an answer on it fails."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _choose(self) -> None:
        left = await asyncio.to_thread(resolve, self._host, self._port)
        failure: PspError = Peer(self.server).no_answer()
        while (address := await first_answering(left, DIAL_SECONDS)) is not None:
            left.remove(address)
            channel = open_channel(grpc_target([address]))
            try:
                await MemberClient(channel, self.server, blake3_digest).parameters()
            except (Unreachable, TimedOut) as error:
                failure = error
                await channel.close()
            except BaseException:
                with contextlib.suppress(Exception):
                    await channel.close()
                raise
            else:
                self._channel, self._address = channel, address
                return
        raise failure
