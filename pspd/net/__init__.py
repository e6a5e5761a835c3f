"""Drives the state machines of :mod:`pspd.core` over sockets with asyncio. No other package opens a data socket."""
