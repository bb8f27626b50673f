"""Postgres: the launcher, the pool, the schema and every line of SQL."""
