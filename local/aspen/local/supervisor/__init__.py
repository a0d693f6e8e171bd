"""The background process that keeps the parts of a deployment running."""
