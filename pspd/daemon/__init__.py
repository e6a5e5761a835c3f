"""The daemons: join the core, the sockets, the store and the control API into processes."""
