"""The command ``pspctl``: sends requests to a PSP server or to agents through gRPC, and prints the answers."""

import os

# Keep the log of gRPC's core off stderr; gRPC reads this variable once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
