"""Data types of the protocol: ranges, manifests, holdings, terms, parameters and tunables."""
