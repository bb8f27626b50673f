"""Telling people and machines what happened: what is said, to whom, and the outbox that sees to it."""
