"""The client of the remote API."""
