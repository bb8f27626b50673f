"""Sigstore's verifier and ours say the same of every inclusion proof, true and false."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

from proveout.ledger.tree import Tree, hashes, inclusion_spans
from proveout.ledger.verify import Rejected, check_inclusion, leaf_hash
from tlog import entries


def sigstore_accepts(entry: bytes, index: int, size: int, root: bytes, proof: list[bytes]) -> bool:
    shown = SimpleNamespace(log_index=index, tree_size=size, hashes=proof, root_hash=root)
    claim: Any = SimpleNamespace(_inner=SimpleNamespace(canonicalized_body=entry, inclusion_proof=shown))
    try:
        verify_merkle_inclusion(claim)
    except VerificationError:
        return False
    return True


def accepts(entry: bytes, index: int, size: int, root: bytes, proof: list[bytes]) -> bool:
    try:
        check_inclusion(leaf_hash(entry), index, size, root, proof)
    except Rejected:
        return False
    return True


def test_no_disagreement_with_sigstore() -> None:
    some, accepted = random.Random(5), 0
    for size in (1, 2, 3, 5, 8, 31, 64, 255, 256, 257, 1000):
        tree, all_entries = Tree(), entries(size)
        tiles = tree.append(all_entries)
        for _ in range(200):
            index = some.randrange(size)
            proof = hashes(tiles.__getitem__, inclusion_spans(index, size), size)
            entry, root, claimed = all_entries[index], tree.root, size
            place = some.randrange(len(proof)) if proof else 0
            case = some.choice(("true", "flipped", "dropped", "doubled", "swapped", "index", "size", "root", "entry"))
            if case == "flipped" and proof:
                proof[place] = bytes([proof[place][0] ^ 1 << some.randrange(8)]) + proof[place][1:]
            elif case == "dropped" and proof:
                del proof[place]
            elif case == "doubled":
                proof.insert(place, root)
            elif case == "swapped" and proof:
                proof[0], proof[place] = proof[place], proof[0]
            elif case == "index":
                index = some.randrange(size)
            elif case == "size":
                claimed = max(index + 1, size + some.choice((-1, 1, size)))
            elif case == "root":
                root = leaf_hash(root)
            elif case == "entry":
                entry = some.choice(all_entries)
            ours = accepts(entry, index, claimed, root, proof)
            assert ours == sigstore_accepts(entry, index, claimed, root, proof), (case, index, claimed, size)
            accepted += ours
    assert 200 < accepted < 1200
