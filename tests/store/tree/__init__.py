"""Tests of ``pspd.store.tree``."""
