"""What the operator sees: results on stdout, everything else on stderr."""
