"""Set-based work: rows are copied into a temporary table, planned in SQL, applied at once."""
