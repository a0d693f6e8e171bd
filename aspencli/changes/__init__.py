"""Parts shared by every write: plans, reports, journals, undo files, and reconciliation."""
