"""The daemon of `pspd client`."""
