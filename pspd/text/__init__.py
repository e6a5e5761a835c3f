"""Text that people write and read: sizes, addresses, names."""
