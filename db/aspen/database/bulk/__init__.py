"""Bulk runs: rows are copied to a temporary table, planned in SQL, and applied together."""
