"""gRPC: translates between messages and the daemons' own words, and decides nothing."""
