"""The command `pspd`."""
