"""People and groups on both sides: at the identity provider and in the database."""
