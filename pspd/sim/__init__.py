"""The virtual network: the machines of ``pspd.core`` on a virtual clock, with faulty paths between them.

Build a :class:`pspd.sim.network.VirtualNetwork`, let virtual time pass, and inspect it. Nothing here sleeps, opens a
socket or reads a clock: the same seed always gives the same run.
"""
