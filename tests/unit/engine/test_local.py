import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from proveout import settings
from proveout.engine import hub, weights
from proveout.engine.local import OVERHEAD, LocalModel, local_model, local_models
from proveout.engine.template import ChatTemplate
from proveout.errors import StartRefused

GGUF, ENCODER = weights.generator().files[0], weights.embedder().folder
XML = """<net><rt_info><chat_template value="{{ messages[0].content }}&#10;" /></rt_info></net>"""


def told(folder: Path, config: str = "", serve: str = "chat,embed") -> settings.Settings:
    (folder / "proveout.yaml").write_text(config)
    variables = {settings.DATA: folder, settings.CONFIG: folder / "proveout.yaml", settings.SERVE: serve}
    return settings.read({variable.name: str(value) for variable, value in variables.items()})


def models(folder: Path, config: str = "", serve: str = "chat,embed") -> dict[str, LocalModel]:
    return {m.name: m for m in local_models(told(folder, config, serve))}


def ir(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"openvino_model.xml": "<net/>", "openvino_model.bin": "", **files}.items():
        (folder / name).write_text(text)
    return folder


def test_without_a_word_there_are_the_built_in_ones(tmp_path: Path) -> None:
    found = models(tmp_path)
    assert [(m.name, m.role, m.mode, m.instances) for m in found.values()] == [
        (weights.GENERATOR, "chat", "fast", 1),
        (weights.EMBEDDER, "embed", "fast", 1),
    ]
    assert found[weights.GENERATOR].cache == 320 << 20
    exact = models(tmp_path, f"models: {{{weights.GENERATOR}: {{mode: deterministic}}}}")
    assert exact[weights.GENERATOR].cache == 640 << 20  # a token's keys and values take more of it


def test_another_generator_takes_the_place_of_the_built_in_one_unless_both_are_named(tmp_path: Path) -> None:
    mine = f"mine: {{path: {GGUF}, mode: deterministic, instances: 2, memory: 1 GiB}}"
    found = models(tmp_path, f"models: {{{mine}}}")
    assert set(found) == {"mine", weights.EMBEDDER}
    assert (found["mine"].mode, found["mine"].instances) == ("deterministic", 2)
    assert found["mine"].cache == (1 << 30) - GGUF.stat().st_size - OVERHEAD
    both = models(tmp_path, f"models: {{{mine}, {weights.GENERATOR}: {{}}}}")
    assert set(both) == {"mine", weights.GENERATOR, weights.EMBEDDER}
    assert both["mine"].digest == both[weights.GENERATOR].digest  # the same weights, by whatever name


def test_forms_are_known_by_their_files(tmp_path: Path) -> None:
    shutil.copytree(ENCODER, tmp_path / "encoder")
    jinja = ir(tmp_path / "jinja", **{"chat_template.jinja": "J", "tokenizer_config.json": '{"chat_template": "C"}'})
    tokens = '{"chat_template": "{{ bos_token }}", "bos_token": {"content": "<s>"}, "eos_token": null}'
    config = ir(tmp_path / "config", **{"tokenizer_config.json": tokens})
    info = ir(tmp_path / "info", **{"openvino_tokenizer.xml": XML})
    found = models(
        tmp_path,
        f"models: {{a: {{path: encoder}}, j: {{path: {jinja}}}, c: {{path: {config}}}, i: {{path: {info}}}}}",
    )
    assert {name: m.role for name, m in found.items()} == {
        **{weights.EMBEDDER: "embed", "a": "embed", "j": "chat", "c": "chat", "i": "chat"},
    }
    turn = [{"role": "user", "content": "Hi"}]
    rendered = {name: m.template.render(turn) for name, m in found.items() if m.template}
    assert rendered == {"j": "J", "c": "<s>", "i": "Hi"}
    assert found["j"].digest != found["c"].digest  # the folders' files, not their names, decide
    assert found["j"].template is not None and found["j"].template.digest == ChatTemplate("J").digest


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("models: {m: {path: weights.pt}}", "models.m.path: .*weights.pt is of a form that can run code"),
        ("models: {m: {path: torch}}", "pytorch_model.bin is of a form that can run code"),
        ("models: {m: {path: llm}}", "safetensors are taken of sentence encoders only"),
        ("models: {m: {path: nothing}}", "there is nothing at"),
        ("models: {m: {path: text.gguf}}", "is not a GGUF file"),
        ("models: {m: {path: two}}", "name one of the GGUF files"),
        ("models: {m: {}}", "models.m: say where it is"),
        ("models: {m: {path: bare}}", "has no chat template"),
        ("models: {m: {path: bare, chat_template: broken.jinja}}", "models.m: The chat template cannot be read"),
        (f"models: {{{weights.GENERATOR}: {{memory: 100 MiB}}}}", "memory: 100 MiB are too few"),
        (f"models: {{{weights.GENERATOR}: {{device: NPU}}}}", "not on NPU"),
        (f"models: {{{weights.EMBEDDER}: {{mode: deterministic}}}}", "models.all-minilm-l6-v2.mode"),
        (f"models: {{{weights.GENERATOR}: {{instances: 4}}}}\nengine: {{memory: 2 GiB}}", "engine.memory: .*need"),
        ("models: {m: {path: a, hub: b/c}}", "not both"),
        ("models: {M m: {path: a}}", "models.M m"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(tmp_path: Path, config: str, says: str) -> None:
    (tmp_path / "weights.pt").touch()
    (tmp_path / "text.gguf").write_text("no")
    (tmp_path / "broken.jinja").write_text("{% if %}")
    ir(tmp_path / "bare")
    for folder, files in {
        "torch": ["pytorch_model.bin"],
        "llm": ["model.safetensors"],
        "two": ["a.gguf", "b.gguf"],
    }.items():
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).touch()
    with pytest.raises(StartRefused, match=says):
        models(tmp_path, config)


def test_a_process_does_not_load_files_that_were_exchanged_since_the_start(tmp_path: Path) -> None:
    here = told(tmp_path)
    model = local_model(here, weights.GENERATOR)
    assert local_model(here, weights.GENERATOR, model.digest) == replace(model, template=ANY)
    with pytest.raises(StartRefused, match=rf"now of {model.digest}, and the server was started with sha256:old"):
        local_model(here, weights.GENERATOR, "sha256:old")


def test_roles_that_are_not_served_need_no_memory(tmp_path: Path) -> None:
    config = "engine: {memory: 500 MiB}"
    assert set(models(tmp_path, config, serve="embed")) == {weights.GENERATOR, weights.EMBEDDER}
    with pytest.raises(StartRefused, match=r"engine\.memory"):
        models(tmp_path, config)
    with pytest.raises(StartRefused, match="'talk' is not one of chat, embed"):
        told(tmp_path, serve="talk")
    with pytest.raises(StartRefused, match="no local model 'x'"):
        local_model(told(tmp_path), "x")


def test_a_model_from_the_hub_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repository: str, *, revision: str | None, local_dir: Path, allow_patterns: list[str]) -> None:
        asked.append((repository, revision, allow_patterns))
        (local_dir / "sub").mkdir(parents=True)
        (local_dir / "sub" / "m.gguf").symlink_to(GGUF)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    here = told(tmp_path, "models: {m: {hub: 'own/er@v1:sub/m.gguf'}}")
    for _ in range(2):
        hub.fetch(here)
    assert asked == [("own/er", "v1", ["sub/m.gguf"])]
    assert local_model(here, "m").weights.files[0].samefile(GGUF)


def test_a_hub_out_of_reach_says_the_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(StartRefused, match=r"models.m.hub: own/er cannot be downloaded \(no route to host\).*path"):
        hub.fetch(told(tmp_path, "models: {m: {hub: own/er}}"))
