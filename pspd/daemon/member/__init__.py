"""What clients and sources share: one membership in a server's network."""
