"""Data that jobs need: the reference genome, its genes, and sites to mask."""
