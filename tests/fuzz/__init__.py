"""Made-up mappings and files by the thousand, held against plain accounts of the rules."""
