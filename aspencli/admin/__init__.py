"""Administration of a database: create, drop, inspect, and migrate it, or run psql on it."""
