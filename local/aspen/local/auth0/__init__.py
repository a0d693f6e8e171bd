"""The identity provider of the local deployment: OpenID Connect and Auth0's Management API.

It takes the place of Auth0, so that sign-in, invitations, and everything that depends on them can
be tried on a laptop. It asks for no passwords, so it must only be reachable on 127.0.0.1.
"""

STATE_FILE = "identity.sqlite3"
"""The name of the file with the state, in the provider's folder."""
