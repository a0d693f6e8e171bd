"""The server for assistants (Model Context Protocol), whose tools are the reading commands."""
