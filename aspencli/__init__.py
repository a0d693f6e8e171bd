"""The administration toolkit for CZ GEN EPI (Aspen)."""

__version__ = "0.1.0"
