"""The simulated network: the machines of ``pspd.core`` on a virtual clock and a faulty virtual network.

:class:`pspd.sim.world.World` is the network; whoever wants to know something builds one, lets virtual
time pass, and looks. Nothing here sleeps, opens a socket or looks at a clock: the same seed gives the
same run, always.
"""
