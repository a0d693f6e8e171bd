"""Listing, creating, updating, deleting, finding, and downloading samples."""
