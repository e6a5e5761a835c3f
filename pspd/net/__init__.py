"""The sockets: asyncio drives the machines of :mod:`pspd.core`. Nothing else in the project opens a data socket."""
