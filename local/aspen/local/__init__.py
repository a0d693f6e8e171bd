"""A whole deployment on a laptop, without Docker and without a cloud account."""
