import pytest

from proveout.engine import gguf, weights
from proveout.engine.template import HERMES, LLAMA, ChatTemplate
from proveout.errors import InvalidInput

USER = [{"role": "user", "content": "Hi"}]
HERMES_TEMPLATE = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{{ messages[0].content }}"


def test_the_installed_models_template_has_no_place_for_tools() -> None:
    facts = gguf.read(weights.generator().files[0])
    template = ChatTemplate(facts.template, facts.bos, facts.eos)
    assert template.calls is None
    assert template.render(USER).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_forms_of_calls_are_known_by_the_template() -> None:
    assert ChatTemplate(HERMES_TEMPLATE).calls == HERMES
    assert ChatTemplate(HERMES_TEMPLATE + "{# <function= #}").calls is None
    assert ChatTemplate('{{ tools | tojson }} {"name": ..., "parameters": ...}').calls == LLAMA
    assert ChatTemplate("[TOOL_CALLS]{{ tools | tojson }}").calls is None
    assert ChatTemplate("{{ raise_exception('no') }}").calls is None


def test_templates_are_rendered_as_transformers_does() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}\n  {% if loop.index > 1 %}{% break %}{% endif %}\n{{ m.content }}"
        "{% endfor %}{{ {'ä': '<b>'} | tojson }}{% if add_generation_prompt %}!{% endif %}"
    )
    assert ChatTemplate(source, "<s>").render(USER * 2) == '<s>Hi{"ä": "<b>"}!'


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "alternate"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% set _ = messages.append(1) %}", "unsafe"),
        ("{% for x in range(1000000000) %}{% endfor %}", "Range"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ nothing.there }}", "undefined"),
    ],
)
def test_a_template_cannot_do_harm_and_says_why_it_refuses(source: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        ChatTemplate(source).render(USER)


def test_a_broken_template_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        ChatTemplate("{% if %}")


def test_the_digest_is_of_the_source() -> None:
    assert ChatTemplate("a").digest == ChatTemplate("a", "<s>").digest != ChatTemplate("b").digest
