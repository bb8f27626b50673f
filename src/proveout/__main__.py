"""`python -m proveout` is `proveout`."""

from proveout.edge.cli.main import main

main()
