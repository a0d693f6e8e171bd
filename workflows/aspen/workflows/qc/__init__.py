"""Quality: Nextclade, and what it says."""
