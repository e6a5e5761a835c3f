"""A laboratory of several hosts on one machine, and tests of PSP in it. Needs root."""
