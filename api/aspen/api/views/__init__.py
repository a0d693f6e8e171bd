"""The endpoints, with one module for each resource."""
