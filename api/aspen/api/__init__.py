"""The HTTP API that laboratories and operators use."""
