"""Durable work on the same Postgres."""
