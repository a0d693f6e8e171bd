"""What every write shares: plans, reports, journals, undo files, and reconciliation."""
