"""Tests with real daemons and the real command on loopback."""
