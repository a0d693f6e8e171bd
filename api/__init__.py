"""The service itself: the API that laboratories and operators speak to."""
