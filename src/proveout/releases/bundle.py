"""An app folder as one file, to send to a server: a zip of its visible files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from proveout.errors import InvalidInput, TooLarge

MAX_BYTES = 256 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # clocks stay out: the same folder packs to the same bytes


def read_folder(folder: Path) -> dict[str, bytes]:
    """The folder's files by relative path, hidden ones left out.

    Raises InvalidInput when there is no such folder or a link leads out of it, TooLarge beyond 256 MiB.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder: an app is a folder with an app.yaml.")
    root, files, total = folder.resolve(), {}, 0
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root):
            raise InvalidInput(f"{path} leads out of the app's folder: copy the file into it.")
        total += path.stat().st_size
        if total > MAX_BYTES:
            raise TooLarge(f"{folder} holds more than {MAX_BYTES >> 20} MiB: make it smaller.")
        files[relative.as_posix()] = path.read_bytes()
    return files


def pack(files: dict[str, bytes]) -> bytes:
    """The files as one zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of a bundle. Raises InvalidInput, and TooLarge before anything beyond 256 MiB is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise TooLarge(f"The bundle unpacks to more than {MAX_BYTES >> 20} MiB.")
            names = [PurePosixPath(entry.filename) for entry in entries]
            if any(name.is_absolute() or ".." in name.parts for name in names):
                raise InvalidInput("The bundle names files outside its folder.")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InvalidInput(f"The bundle is not a readable zip file: {error}.") from error
