"""PostgreSQL on this machine: its programs, its files, and its server."""
