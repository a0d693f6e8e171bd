"""The database of CZ GEN EPI: its schema, its sessions, and set-based work on it."""
