"""Commands that write: their options, views, backends, and undo."""
