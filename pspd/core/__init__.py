"""The protocol, sans-I/O: no sockets, no clock, no asyncio, and only seeded or provided random numbers.

:class:`pspd.core.server.machine.ServerMachine` and :class:`pspd.core.client.machine.ClientMachine` receive inputs (a
seed, datagrams, finished transfers, the time), and return effects. A driver carries out the effects. The same inputs
give the same effects, byte for byte.
"""
