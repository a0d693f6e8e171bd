"""The identity provider of the local deployment: OpenID Connect, and Auth0's Management API.

It stands where Auth0 stands for the live service, so that signing in, inviting and everything that
hangs on them can be tried on a laptop. It asks for no passwords and belongs on 127.0.0.1 only.
"""
