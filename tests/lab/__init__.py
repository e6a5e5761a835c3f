"""Tests of PSP on several hosts: network namespaces of one machine. Needs root."""
