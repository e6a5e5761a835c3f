"""Tests of ``pspd.store.files``."""
