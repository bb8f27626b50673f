import logging
from dataclasses import replace
from pathlib import Path

import pytest

from proveout.domain import ModelUse, Price
from proveout.engine.catalogue import Catalogue, Provider
from proveout.engine.echo import Echo
from proveout.engine.local import LocalModel
from proveout.engine.remote import Remote
from proveout.engine.template import ChatTemplate
from proveout.engine.weights import Weights
from proveout.errors import NotFound, Unavailable
from proveout.settings import EchoReply, EchoSettings

ACME = Provider(
    "acme",
    "https://acme.example/v1",
    "secret-key",
    prices={"org/large": Price(1, 2)},
    versions={"org/large": "2026-01", "small": "7"},
)


def local(name: str, digest: str, file: str, template: str = "") -> LocalModel:
    return LocalModel(
        name=name,
        weights=Weights(name, (Path(file),)),
        device="CPU",
        instances=1,
        mode="fast",
        memory=1 << 30,
        template=ChatTemplate(template) if template else None,
        digest=digest,
    )


LOCAL = (
    local("smollm2-135m-instruct", "sha256:aa", "m.gguf", "{{ messages[0].content }}"),
    local("all-minilm-l6-v2", "sha256:bb", "model.safetensors"),
)


def catalogue(*providers: Provider) -> Catalogue:
    return Catalogue(providers, Path("/nowhere/engine.sock"), LOCAL)


def test_names_resolve_to_a_model_and_its_upstream_name() -> None:
    models = catalogue(ACME)
    assert isinstance(models.resolve("echo")[0], Echo)
    for name, upstream in {
        "local/smollm2-135m-instruct": "smollm2-135m-instruct",
        "acme/org/large": "org/large",
        "acme/not-declared": "not-declared",
    }.items():
        model, found = models.resolve(name)
        assert isinstance(model, Remote)
        assert found == upstream
    assert models.resolve("acme/small")[0] is models.resolve("acme/org/large")[0]


@pytest.mark.parametrize("name", ["", "gpt", "acme", "acme/", "local/", "local/all-minilm-l6-v2", "ecma/x", "echo/x"])
def test_unknown_names_are_not_found(name: str) -> None:
    for ask in (catalogue(ACME).resolve, catalogue(ACME).digest, catalogue(ACME).price):
        if not (ask.__name__ != "resolve" and name.startswith("local/all")):
            with pytest.raises(NotFound, match="acme/org/large"):
                ask(name)


def test_digests_tell_models_and_versions_apart_and_nothing_else() -> None:
    models = catalogue(ACME)
    assert models.digest("local/smollm2-135m-instruct") == "sha256:aa"
    assert models.digest("local/all-minilm-l6-v2") == "sha256:bb"
    moved = catalogue(Provider("acme", "http://10.0.0.1/v1", "other", versions=ACME.versions))
    assert models.digest("acme/org/large") == moved.digest("acme/org/large")
    newer = catalogue(Provider("acme", ACME.base_url, versions={"org/large": "2026-02"}))
    names = ["echo", "acme/org/large", "acme/small", "acme/other"]
    digests = [*map(models.digest, names), newer.digest("acme/org/large")]
    assert len(set(digests)) == 5
    assert all(d.startswith("sha256:") and len(d) == 71 for d in digests)


def test_a_release_pins_mode_and_template_of_a_local_model() -> None:
    use = catalogue().use("local/smollm2-135m-instruct")
    assert (use.digest, use.mode, use.template) == (
        "sha256:aa",
        "fast",
        ChatTemplate("{{ messages[0].content }}").digest,
    )
    assert catalogue().use("local/all-minilm-l6-v2").template == catalogue(ACME).use("acme/small").mode == ""


def test_what_a_release_did_not_pin_does_not_answer_for_it(caplog: pytest.LogCaptureFixture) -> None:
    models = catalogue(ACME)
    use = models.use("local/smollm2-135m-instruct")
    assert models.pinned(use) is models.resolve(use.name)[0]
    assert models.pinned(ModelUse("acme/small", "sha256:another")) is models.resolve("acme/small")[0]
    for what, other in {
        "weights": replace(use, digest="sha256:ee"),
        "mode": replace(use, mode="deterministic"),
        "chat template": replace(use, template="sha256:ff"),
    }.items():
        caplog.clear()
        for _ in range(3):
            with pytest.raises(Unavailable, match=f"the {what} of that name here changed"):
                models.pinned(other)
        assert [record.levelno for record in caplog.records] == [logging.ERROR], "told once, not at every question"
    with pytest.raises(NotFound):
        models.pinned(ModelUse("local/gone", "sha256:aa"))


def test_what_a_model_takes_is_known_of_local_ones() -> None:
    models = catalogue(ACME)
    assert models.takes("local/smollm2-135m-instruct", "response_format", "logprobs")
    for field in ("tools", "messages", "logit_bias", "top_logprobs", "reasoning_effort"):
        assert not models.takes("local/smollm2-135m-instruct", field) and models.takes("acme/small", field)
    tools = "{% for t in tools %}<tool_call>{{ t.function.name }}{% endfor %}"
    caller = Catalogue([], Path("/nowhere"), [local("caller", "sha256:cc", "m.gguf", tools)])
    assert caller.takes("local/caller", "tools", "tool_choice", "messages")


def test_models_of_roles_that_are_not_served_are_known_but_not_named() -> None:
    models = Catalogue([], Path("/nowhere"), LOCAL, serve=("embed",))
    assert models.names() == ["echo"] and models.embedders() == ["local/all-minilm-l6-v2"]
    assert models.digest("local/smollm2-135m-instruct") == "sha256:aa"
    with pytest.raises(NotFound):
        models.resolve("local/smollm2-135m-instruct")


def test_prices_are_by_model_and_ours_are_free() -> None:
    models = catalogue(ACME)
    assert models.price("acme/org/large") == Price(1, 2)
    assert models.price("acme/small") is None
    flat = catalogue(Provider("acme", ACME.base_url, price=Price(3, 4), prices=ACME.prices))
    assert flat.price("acme/small") == Price(3, 4) and flat.price("acme/org/large") == Price(1, 2)
    assert models.price("local/all-minilm-l6-v2") == Price(0, 0)
    assert models.price("echo") == models.price("local/smollm2-135m-instruct") == Price(0, 0)


def test_scripted_fakes_are_models_told_apart_by_their_scripts() -> None:
    def scripted(reply: str) -> Catalogue:
        script = EchoSettings("desk", {"leave": EchoReply(reply)})
        return Catalogue([ACME], Path("/nowhere/engine.sock"), LOCAL, [script])

    models = scripted("25 days.")
    assert isinstance(models.resolve("echo/desk")[0], Echo) and models.price("echo/desk") == Price(0, 0)
    assert "echo/desk" in models.names()
    digests = {models.digest("echo/desk"), scripted("26 days.").digest("echo/desk"), models.digest("echo")}
    assert len(digests) == 3 and models.digest("echo/desk") == scripted("25 days.").digest("echo/desk")


def test_embedders() -> None:
    models = catalogue(ACME)
    assert models.embedder("local/all-minilm-l6-v2")[1] == "all-minilm-l6-v2"
    assert models.embedder("acme/org/embed") == (models.resolve("acme/small")[0], "org/embed")
    for name in ("echo", "local/smollm2-135m-instruct", "nowhere/x", "acme/"):
        with pytest.raises(NotFound, match="local/all-minilm-l6-v2"):
            models.embedder(name)


def test_names_are_the_declared_ones() -> None:
    assert catalogue(ACME).names() == ["local/smollm2-135m-instruct", "echo", "acme/org/large", "acme/small"]


def test_a_provider_cannot_take_our_names_or_show_its_key() -> None:
    for name in ("local", "echo", "a/b", ""):
        with pytest.raises(ValueError, match="cannot be called"):
            Provider(name, "http://x/v1")
    assert "secret" not in repr(ACME)
