"""What the command line can do, free of how it is asked for and shown."""
