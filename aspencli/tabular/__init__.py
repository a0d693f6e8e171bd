"""Reading and writing tables: CSV, workbooks, and FASTA."""

SIZE_OPTION, SIZE_VARIABLE = "--max-expanded-size", "ASPEN_MAX_EXPANDED_SIZE"
"""The option and the environment variable that limit the size of a compressed input."""
