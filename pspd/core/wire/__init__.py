"""Datagrams and frames as bytes."""
