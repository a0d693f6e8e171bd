"""The CZ GEN EPI database: its schema, its sessions, and bulk operations on it."""
