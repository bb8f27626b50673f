"""The digest of a release: SHA-256 over the canonical JSON (RFC 8785) of its resolved manifest."""

from __future__ import annotations

import hashlib

import msgspec
import rfc8785

from proveout.domain import Manifest


def digest(manifest: Manifest) -> str:
    """`sha256:…`. Content and settings alone decide it: no ids, clocks, paths, addresses or vectors."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(msgspec.to_builtins(manifest))).hexdigest()
