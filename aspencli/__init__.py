"""The administration toolkit of CZ GEN EPI (Aspen)."""

__version__ = "0.1.0"
