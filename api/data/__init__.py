"""Tables that the service hands out with what the database holds."""
