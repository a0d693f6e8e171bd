"""Pictures of real screens: ``python -m tests.screens`` draws them, and a test detects drift."""
