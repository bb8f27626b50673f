"""What the peers run: each file starts in the peers' own environment, never in ours."""
