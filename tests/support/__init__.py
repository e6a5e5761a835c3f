"""Helpers that several kinds of tests share: hosts, daemons, files."""
