"""The console behind ``aspencli db interact``, and its way of running code without a prompt."""
