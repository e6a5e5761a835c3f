"""Text for people: sizes, addresses, and text that is safe to print."""
