"""The process in the background that keeps the parts of a deployment running."""
