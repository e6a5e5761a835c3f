"""Tests of ``pspd.store.filesystem``."""
