"""Dumps and copies of a database, with personal data masked as it is read."""
