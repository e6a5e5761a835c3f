"""What several kinds of tests stand on: hosts, daemons, files."""
