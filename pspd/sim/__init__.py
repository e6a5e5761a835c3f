"""The virtual network: the state machines of ``pspd.core`` on a virtual clock, with faulty paths between them.

Build a :class:`pspd.sim.network.VirtualNetwork`, call ``run``, and inspect the network. This package never sleeps,
opens a socket or reads a clock: the same seed always gives the same run.
"""
