"""Generated mappings and files by the thousand, checked against simple models of the rules."""
