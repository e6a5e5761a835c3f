"""The protocol, sans-I/O: no socket, no clock, no asyncio, no randomness of its own.

Two machines, :class:`pspd.core.server.machine.ServerMachine` and :class:`pspd.core.client.machine.ClientMachine`, take
inputs (datagrams, finished transfers, the time) and hand out effects. Whoever drives them does what
the effects say. The same inputs give the same effects, byte for byte.
"""
