"""A client's files: on disk, and in memory for tests and the simulator."""
