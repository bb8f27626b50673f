"""The other side, as part of the product: a scripted upstream with a ledger of its own, a fault proxy, a client that
notes what it saw, and the comparison of the three ledgers."""
