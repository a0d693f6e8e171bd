"""Clients for the API, the identity provider, and the local deployment."""
