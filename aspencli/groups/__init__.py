"""Groups of users: their members and invitations."""
