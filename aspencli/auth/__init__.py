"""Signing in: the identity provider, the device flow, sessions, and where tokens are stored."""
