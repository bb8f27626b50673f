"""Proveout: a generative-AI application from proof of concept to production, with proof."""
