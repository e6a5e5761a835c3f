"""Timers, round-trip times, windows and pacing."""
