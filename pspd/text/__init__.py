"""Text that people write and read: sizes, addresses, and text that is safe to print."""
