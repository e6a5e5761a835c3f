"""The output of `pspctl`: tables, progress and JSON documents."""
