"""Reading and writing tables: CSV, workbooks, and FASTA."""
