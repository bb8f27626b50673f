"""Ten thousand rewritten pasts: `make soak`."""

from __future__ import annotations

from pathlib import Path

from tampering import remembered, tamper


def test_ten_thousand_tamperings_are_found_where_they_are(tmp_path: Path) -> None:
    past = remembered(tmp_path)
    for seed in range(1000, 11_000):
        tamper(past, seed)
