"""The doors: HTTP, the console, the command line, and the wiring of the rooms."""
