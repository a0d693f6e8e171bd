"""The service's compute jobs: what they do, and what runs them."""
