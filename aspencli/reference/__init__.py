"""Reference data: locations and pathogens, and lookups of groups and roles."""
