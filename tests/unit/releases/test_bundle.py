"""A bundle: what goes in comes out; what leads out of its folder does not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.errors import InvalidInput, TooLarge
from proveout.releases import bundle


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?\.md", fullmatch=True), st.binary(max_size=100), max_size=5)
)
def test_a_bundle_unpacks_to_what_was_packed(files: dict[str, bytes]) -> None:
    assert bundle.unpack(bundle.pack(files)) == files
    assert bundle.pack(files) == bundle.pack(dict(reversed(files.items())))


def test_hidden_files_stay_and_links_out_are_refused(tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / ".git").mkdir(parents=True)
    (app / ".git" / "config").write_text("secret")
    (app / "app.yaml").write_text("x")
    assert bundle.read_folder(app) == {"app.yaml": b"x"}
    (tmp_path / "outside.md").write_text("outside")
    (app / "link.md").symlink_to(tmp_path / "outside.md")
    with pytest.raises(InvalidInput, match="leads out of the app's folder"):
        bundle.read_folder(app)
    with pytest.raises(InvalidInput, match="is not a folder"):
        bundle.read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../out.md", "/etc/passwd", "a/../../b"])
def test_names_outside_the_folder_are_refused(name: str) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InvalidInput, match="outside its folder"):
        bundle.unpack(raw.getvalue())


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"{number}", bytes(60 << 20))
    with pytest.raises(TooLarge, match="unpacks to more than 256 MiB"):
        bundle.unpack(raw.getvalue())


@given(st.binary(max_size=200))
def test_any_bytes_are_unpacked_or_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        bundle.unpack(raw)
