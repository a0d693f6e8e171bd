"""Read-only diagnostics from a server's system catalogs, for any target.

Each module answers one question with frozen dataclasses. PostgreSQL 13 to 18 are supported: a
column that not every version has is looked up before it is used.
"""
