"""Data sets, scorers and the runner."""
