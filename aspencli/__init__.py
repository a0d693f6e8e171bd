"""The administration toolkit for CZ GEN EPI (Aspen)."""

__version__ = "0.2.0"
