"""What programs ask for: tokens by each grant, their end, and who a token is about."""
