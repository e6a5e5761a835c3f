"""The machine below the program: addresses, streams, folders, limits and locale."""
