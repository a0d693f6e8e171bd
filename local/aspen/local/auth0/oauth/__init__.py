"""The OAuth and OpenID Connect endpoints: tokens, revocation, discovery, and user info."""
