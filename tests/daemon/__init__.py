"""The daemons, in this process."""
