"""The sockets, over real connections on loopback."""
