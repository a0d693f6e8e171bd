"""The client of the identity provider, for the service and for the command line."""
