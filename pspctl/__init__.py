"""The command ``pspctl``: talks gRPC with a PSP server, prints the answer, exits with a code by cause."""

import os

# gRPC's core logs to stderr, where our lines are the only ones. It looks here once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
