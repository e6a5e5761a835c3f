"""The daemon of `pspd server`."""
