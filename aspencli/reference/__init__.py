"""Reference data: locations, pathogens, and lookups."""
