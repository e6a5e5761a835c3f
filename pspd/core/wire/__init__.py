"""The wire format of datagrams and frames."""
