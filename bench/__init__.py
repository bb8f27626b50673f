"""The performance tables, peers beside us in the same run. Not part of the product."""
