"""The commands of `pspctl`, one module each."""
