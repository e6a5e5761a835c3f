"""The client machine: hellos, downloads, and contributions to other clients."""
