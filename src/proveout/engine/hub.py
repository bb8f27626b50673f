"""Models from the Hugging Face hub, downloaded once into the data folder."""

from __future__ import annotations

import re
from pathlib import Path

from proveout.errors import StartRefused
from proveout.settings import LocalSettings, Settings

_TAKEN = ("*.xml", "*.json", "*.jinja", "openvino_*.bin", "*.safetensors")


def place(told: Settings, given: LocalSettings) -> Path:
    """Where a model from the hub is, or will be: its folder, or its one file."""
    assert given.hub is not None
    repository, _, file = given.hub.partition(":")
    folder = told.data / "models" / re.sub(r"[^\w.-]", "--", repository)
    return folder / file if file else folder


def fetch(told: Settings) -> None:
    """Downloads what is not there yet. Raises StartRefused with the way around when it cannot."""
    for given in told.models:
        if given.hub is None or place(told, given).exists():
            continue
        from huggingface_hub import snapshot_download  # takes a third of a second, which few starts need
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        name, _, file = given.hub.partition(":")
        repository, _, revision = name.partition("@")
        folder = place(told, given) if not file else place(told, given).parents[len(Path(file).parts) - 1]
        draft = folder.with_name(f".{folder.name}")
        try:
            snapshot_download(
                repository,
                revision=revision or None,
                local_dir=draft,
                allow_patterns=[file] if file else list(_TAKEN),
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StartRefused(
                f"models.{given.name}.hub: {given.hub} cannot be downloaded ({reason}): "
                "download it elsewhere, and name its `path`."
            ) from error
        draft.rename(folder)
