"""Deadlines, round-trip times and congestion windows."""
