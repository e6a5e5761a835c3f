"""Tests of ``pspd.store.source``."""
