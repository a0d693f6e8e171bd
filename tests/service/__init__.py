"""The service as a whole: requests with what is expected of them, and made-up ones."""
