"""The sockets: asyncio drives the state machines of :mod:`pspd.core`. No other package opens a data socket."""
