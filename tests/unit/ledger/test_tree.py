"""The Merkle tree: against published vectors, and against the recursive definitions of RFC 9162."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proveout.errors import InvalidInput
from proveout.ledger.tree import Tree, consistency_spans, hashes, inclusion_spans, tiles_for
from proveout.ledger.verify import (
    EMPTY_ROOT,
    ENTRIES,
    Rejected,
    TileId,
    check_consistency,
    check_inclusion,
    leaf_hash,
    split_bundle,
    tile_of,
    tiles_of,
)
from tlog import Log, entries, mth, path, subproof

# The tree that Certificate Transparency's implementations share.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (4, 8): ["6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (7, 8): [
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def built(leaves: Sequence[bytes]) -> Log:
    log = Log()
    log.append(leaves)
    return log


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert built(LEAVES[:size]).tree.root.hex() == ROOTS[size] == mth(LEAVES[:size]).hex()


def test_published_proofs() -> None:
    for (index, size), proof in INCLUSION.items():
        made = hashes(built(LEAVES[:size]).read, inclusion_spans(index, size), size)
        assert [one.hex() for one in made] == proof
        check_inclusion(leaf_hash(LEAVES[index]), index, size, bytes.fromhex(ROOTS[size]), made)
    for (old, new), proof in CONSISTENCY.items():
        made = hashes(built(LEAVES[:new]).read, consistency_spans(old, new), new)
        assert [one.hex() for one in made] == proof
        check_consistency(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), made)


SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 1000)


@pytest.mark.parametrize("size", SIZES)
def test_proofs_are_those_of_the_definition(size: int) -> None:
    log, some = built(entries(size)), random.Random(size)
    assert log.tree.root == mth(log.entries)
    for index in {0, size - 1, *(some.randrange(size) for _ in range(4))}:
        spans = inclusion_spans(index, size)
        fetched = {tile: log.read(tile) for tile in tiles_for(spans, size)}
        made = hashes(fetched.__getitem__, spans, size)
        assert made == path(index, log.entries)
        check_inclusion(leaf_hash(log.entries[index]), index, size, log.tree.root, made)
    for old in {1, size - 1 or 1, size, *(some.randint(1, size) for _ in range(4))}:
        made = hashes(log.read, consistency_spans(old, size), size)
        assert made == subproof(old, log.entries)
        check_consistency(old, mth(log.entries[:old]), size, log.tree.root, made)


def test_a_tree_of_three_levels() -> None:
    """70,000 entries: the example of tlog-tiles, its tiles and their widths."""
    log = built([b"%d" % n for n in range(70_000)])
    assert [sum(1 for _ in tiles_of(level, 70_000)) for level in (ENTRIES, 0, 1, 2, 3)] == [274, 274, 2, 1, 0]
    assert {"tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"} <= log.files.keys()
    assert log.tree.root == mth(log.entries)
    for index in (0, 65_535, 65_536, 69_999):
        made = hashes(log.read, inclusion_spans(index, 70_000), 70_000)
        check_inclusion(leaf_hash(log.entries[index]), index, 70_000, log.tree.root, made)
    for old in (1, 255, 65_536, 65_537, 69_999):
        made = hashes(log.read, consistency_spans(old, 70_000), 70_000)
        check_consistency(old, mth(log.entries[:old]), 70_000, log.tree.root, made)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=6))
def test_growing_in_steps_gives_the_same_tree(steps: list[int]) -> None:
    """As one append, reloaded after every step; and a changed tile is a prefix of what it becomes."""
    log = Log()
    for step in steps:
        log.tree = Tree.load(log.read, log.tree.size)
        before = dict(log.files)
        log.append(entries(step, len(log.entries)))
        assert all(log.files[name] == content for name, content in before.items() if name != "checkpoint")
    at_once = built(log.entries)
    assert (log.tree.size, log.tree.root) == (at_once.tree.size, at_once.tree.root)
    assert at_once.files.items() - {("checkpoint", at_once.files["checkpoint"])} <= log.files.items()
    for tile in tiles_of(ENTRIES, len(log.entries)):
        assert split_bundle(log.read(tile), tile)[0] == log.entries[tile.n * 256 : tile.n * 256 + tile.width]


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TileId(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (TileId(5, 0, 256), "tile/5/000"),
        (TileId(ENTRIES, 999, 17), "tile/entries/999.p/17"),
        (TileId(1, 1000, 255), "tile/1/x001/000.p/255"),
    ],
)
def test_paths(tile: TileId, path: str) -> None:
    assert tile.path == path


def test_limits() -> None:
    with pytest.raises(InvalidInput):
        Tree().append([bytes(65_536)])
    assert len(Tree().append([bytes(65_535)])[TileId(ENTRIES, 0, 1)]) == 65_537
    assert Tree().append([]) == {} and Tree().root == EMPTY_ROOT
    for wrong in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(InvalidInput):
            inclusion_spans(*wrong)
    with pytest.raises(InvalidInput):
        consistency_spans(4, 3)
    short = Log()
    short.append(entries(300))
    short.files["tile/0/000"] = short.files["tile/0/000"][:-1]
    with pytest.raises(Rejected, match="tile/0/000, byte 8191"):
        hashes(short.read, inclusion_spans(3, 300), 300)
    assert tile_of(0, 1, 300) == TileId(0, 1, 44)


# -- proofs that are not: whatever is changed, none is accepted ----------------------------------------------------

BIG = Log()
BIG.append(entries(600))
OLD_ROOTS = {size: mth(BIG.entries[:size]) for size in (1, 2, 3, 255, 256, 257, 599, 600)}


def changed(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    how = data.draw(st.sampled_from(("flip", "drop", "double", "swap", "first", "last", "cut")))
    place = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    other = [*proof]
    if how == "flip" and other:
        bit = data.draw(st.integers(0, 255))
        other[place] = (int.from_bytes(other[place], "big") ^ (1 << bit)).to_bytes(32, "big")
    elif how == "drop" and other:
        del other[place]
    elif how == "double" and other:
        other.insert(place, other[place])
    elif how == "swap" and other:
        other[place], other[-1 - place] = other[-1 - place], other[place]
    elif how == "cut" and other:
        other = other[:place]
    else:
        other.insert(0 if how == "first" else len(other), BIG.tree.root)
    return other


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_wrong_inclusion_is_accepted(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, 599))
    proof = hashes(BIG.read, inclusion_spans(index, 600), 600)
    case = data.draw(st.sampled_from(("proof", "leaf", "index", "size", "root")))
    leaf, at, size, root, hashed = leaf_hash(BIG.entries[index]), index, 600, BIG.tree.root, proof
    if case == "proof":
        hashed = changed(proof, data)
        if hashed == proof:
            return
    elif case == "leaf":
        leaf = leaf_hash(BIG.entries[data.draw(st.integers(0, 599).filter(lambda n: n != index))])
    elif case == "index":
        at = data.draw(st.integers(-2, 2**64).filter(lambda n: n != index))
    elif case == "size":
        size = data.draw(st.integers(0, 599) | st.integers(601, 2**64))
        # A proof does not tell the size where the same hashes lead the same way: there the root, which is signed with
        # its size, decides.
        if inclusion_shape(index, size) == inclusion_shape(index, 600):
            return
    else:
        root = mth(BIG.entries[:599])
    with pytest.raises(Rejected):
        check_inclusion(leaf, at, size, root, hashed)


def inclusion_shape(index: int, size: int) -> list[bool] | None:
    """Of every hash of the proof, whether it stands at the left."""
    return [span.end <= index for span in inclusion_spans(index, size)] if index < size else None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_wrong_consistency_is_accepted(data: st.DataObject) -> None:
    old = data.draw(st.sampled_from(sorted(OLD_ROOTS)))
    proof = hashes(BIG.read, consistency_spans(old, 600), 600)
    case = data.draw(st.sampled_from(("proof", "old root", "new root", "swapped", "sizes")))
    was, now, made = OLD_ROOTS[old], BIG.tree.root, proof
    if case == "proof":
        made = changed(proof, data)
        if made == proof:
            return
    elif case == "old root":
        was = OLD_ROOTS[3 if old != 3 else 2]
    elif case == "new root":
        now = OLD_ROOTS[3]
    elif case == "swapped":
        was, now = now, was
        if was == now:
            return
    new = 600
    if case == "sizes":
        old, new = new, old
        if old == new:
            return
    with pytest.raises(Rejected):
        check_consistency(old, was, new, now, made)


@pytest.mark.parametrize(
    ("old", "old_root", "new", "new_root", "proof"),
    [
        (0, EMPTY_ROOT, 1, b"any", []),
        (0, EMPTY_ROOT, 1, b"any", [EMPTY_ROOT]),
        (0, b"one", 0, b"other", []),
        (0, b"one", 0, b"one", [EMPTY_ROOT]),
        (1, b"one", 1, b"other", []),
        (1, b"one", 1, b"one", [EMPTY_ROOT]),
        (2, b"one", 1, b"one", []),
        (1, b"one", 2, b"one", []),
        (-1, b"one", 2, b"one", [EMPTY_ROOT]),
    ],
)
def test_edges_of_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> None:
    with pytest.raises(Rejected):
        check_consistency(old, old_root, new, new_root, proof)


def test_a_proof_has_the_length_that_its_place_needs() -> None:
    leaf, root, made = leaf_hash(BIG.entries[5]), BIG.tree.root, hashes(BIG.read, inclusion_spans(5, 600), 600)
    for proof, problem in (([*made, root], "too long"), (made[:-1], "too short")):
        with pytest.raises(Rejected, match=problem):
            check_inclusion(leaf, 5, 600, root, proof)
    made = hashes(BIG.read, consistency_spans(257, 600), 600)
    for proof, problem in (([*made, root], "too long"), (made[:-1], "too short")):
        with pytest.raises(Rejected, match=problem):
            check_consistency(257, OLD_ROOTS[257], 600, root, proof)
