"""Output for the operator: results on stdout, everything else on stderr."""
