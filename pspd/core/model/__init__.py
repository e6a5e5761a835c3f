"""Plain data of the protocol: ranges, manifests, holdings, terms, parameters."""
