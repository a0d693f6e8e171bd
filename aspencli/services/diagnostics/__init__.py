"""What a server's catalogues tell of its state, read and never written, on any target.

Each module answers one question with frozen dataclasses. PostgreSQL 13 to 18: a column that not
every version has is looked up before it is named.
"""
