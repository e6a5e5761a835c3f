"""The daemons, which combine the core, the sockets, the store and the control API in processes."""
