"""The console behind ``aspencli db interact``, and its runner for code without a prompt."""
