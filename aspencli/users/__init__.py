"""Users: list, create, and import them."""
