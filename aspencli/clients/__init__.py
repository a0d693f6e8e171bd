"""What talks to the outside world: the API, the identity provider, AWS."""
