"""What `pspctl` shows: tables, progress, JSON."""
