"""The service as a whole: requests with their expected answers, and generated requests."""
