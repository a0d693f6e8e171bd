"""What people see: entering a user code, signing in, deciding. Plain HTML without scripts."""
