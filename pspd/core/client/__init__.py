"""A client's machine: requests what it lacks, sends what it holds."""
