"""Reach a remote deployment: its AWS account, its secret, and its database server."""
