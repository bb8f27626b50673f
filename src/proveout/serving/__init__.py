"""The pipeline of one request: its stages in order, no HTTP."""
