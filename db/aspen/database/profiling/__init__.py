"""Recording what a program asks of the database."""
