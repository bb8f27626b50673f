"""The processes that 'proveout up' supervises."""
