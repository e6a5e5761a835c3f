"""The command ``pspctl``: controls a server and agents through gRPC, seeds files, and simulates networks."""

import os

# Keep the log of gRPC's core off stderr; gRPC reads this variable once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
