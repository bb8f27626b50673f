"""What is kept of every request: its intent and its completion."""
