"""The pages for people: enter a user code, sign in, approve or deny. Plain HTML without scripts."""
