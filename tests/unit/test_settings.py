from pathlib import Path

import pytest

from proveout.configfile import Witness
from proveout.domain import Timeouts, ToolCall
from proveout.errors import StartRefused
from proveout.settings import (
    ChatSettings,
    ClientSettings,
    EchoReply,
    MailSettings,
    NotifySettings,
    RetentionSettings,
    Settings,
    WebhookSettings,
    read,
    read_client,
)


def settings(folder: Path, text: str) -> Settings:
    (folder / "proveout.yaml").write_text(text)
    return read({"PROVEOUT_CONFIG": str(folder / "proveout.yaml"), "PROVEOUT_DATA": str(folder)})


def test_the_command_line_needs_none_of_the_servers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proveout.yaml").write_text(
        "providers: {acme: {base_url: https://acme.example/v1, api_key_env: NOT_SET}}"
    )
    (tmp_path / "owner.key").write_text("pk_owner\n")
    told = {"PROVEOUT_DATA": str(tmp_path), "PROVEOUT_URL": "https://proveout.example/"}
    assert read_client(told) == ClientSettings("https://proveout.example", "pk_owner")
    assert read_client({**told, "PROVEOUT_KEY": "pk_mine"}).key == "pk_mine"
    with pytest.raises(StartRefused, match="NOT_SET"):
        read(told)


def test_timeouts_of_a_provider(tmp_path: Path) -> None:
    given = "providers: {acme: {base_url: https://acme.example/v1, timeouts: {first: 5, total: 90}}}"
    assert settings(tmp_path, given).providers[0].timeouts == Timeouts(connect=5, first=5, between=30, total=90)
    default = "providers: {acme: {base_url: https://acme.example/v1}}"
    assert settings(tmp_path, default).providers[0].timeouts == Timeouts()


def test_models_that_know_the_bound_by_another_name(tmp_path: Path) -> None:
    models = "{o9: {max_tokens_field: max_completion_tokens}, plain: {version: '1'}}"
    given = f"providers: {{acme: {{base_url: https://acme.example/v1, models: {models}}}}}"
    assert settings(tmp_path, given).providers[0].reasoning == {"o9"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", [True, True, True]),
        ("capture: none", [False, False, False]),
        ("capture: {apps: {desk: none}}", [True, True, False]),
        ("capture: {default: none, apps: {desk: sealed}}", [False, False, True]),
    ],
)
def test_whose_content_is_kept(tmp_path: Path, text: str, kept: list[bool]) -> None:
    capture = settings(tmp_path, text).capture
    assert [capture.keeps(app) for app in (None, "other", "desk")] == kept


def test_how_long_records_are_kept(tmp_path: Path) -> None:
    assert settings(tmp_path, "").retention == RetentionSettings(payloads=30)
    given = "retention: {payloads: never, requests: 400d, evaluations: 1d, events: 3650d}"
    assert settings(tmp_path, given).retention == RetentionSettings(None, 400, 1, 3650)
    for wrong in ("0d", "30", "1w", "-1d", "d"):
        with pytest.raises(StartRefused, match=r"retention\.payloads"):
            settings(tmp_path, f"retention: {{payloads: '{wrong}'}}")


def test_scripts_of_fakes(tmp_path: Path) -> None:
    desk, dice = settings(
        tmp_path,
        """
        echo:
          desk:
            replies:
              leave|holiday: 25 days.
              weather: {tool_calls: [{name: get_weather, arguments: {city: Leeds}}]}
            error_rate: 0.1
            per_token_ms: 20
          dice: {replies: ["1", "2"], seed: 7, tokens: 3}
        """,
    ).echo
    assert desk.name == "desk" and (desk.error_rate, desk.per_token_ms, desk.truncate_rate) == (0.1, 20, 0)
    assert desk.replies["leave|holiday"] == EchoReply("25 days.")
    weather = desk.replies["weather"]
    assert weather.text is None
    assert weather.calls == (ToolCall(weather.calls[0].id, "get_weather", '{"city": "Leeds"}'),)
    assert (dice.any_of, dice.replies) == ((EchoReply("1"), EchoReply("2")), {})
    assert (dice.seed, dice.tokens, dice.chunk) == (7, 3, 1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("echo: {desk: {error_rate: 2}}", "echo.desk.error_rate"),
        ("echo: {desk: {replies: {'what (': x}}}", "echo.desk.replies"),
        ("echo: {desk: {delay: 2}}", "echo.desk.delay"),
        ("echo: {a/b: {}}", "echo"),
        ("capture: {apps: {desk: often}}", "capture"),
        ("providers: {acme: {base_url: https://a.example/ask}}", "providers.acme.base_url: it must end in /v1"),
        ("providers: {acme: {base_url: https://a.example/ask, plain: {text: ''}}}", "providers.acme.plain.text"),
        ("providers: {acme: {base_url: https://a.example/v1, timeouts: {first: 0}}}", "providers.acme.timeouts.first"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(StartRefused) as raised:
        settings(tmp_path, text)
    assert f"proveout.yaml: {key}" in raised.value.message


KEY = "witness.example/w1+05a4155f+BAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"


def test_who_cosigns_the_log(tmp_path: Path) -> None:
    given = f"ledger: {{witnesses: [{{key: {KEY}, url: 'https://w1.example/log/'}}]}}"
    assert settings(tmp_path, given).ledger.witnesses == (Witness(key=KEY, url="https://w1.example/log"),)
    assert settings(tmp_path, "").ledger.witnesses == ()


@pytest.mark.parametrize(
    ("witnesses", "said"),
    [
        (f"[{{key: {KEY[:-4]}, url: 'https://w1.example'}}]", r"ledger\.witnesses\.0\.key"),
        (f"[{{key: {KEY.replace('05a4', '05a5')}, url: 'https://w1.example'}}]", r"ledger\.witnesses\.0\.key"),
        (
            "[{key: witness.example/w1+e38f200a+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB, url: 'https://w1.example'}]",
            r"ledger\.witnesses\.0\.key",
        ),
        ("[{key: '', url: 'https://w1.example'}]", r"ledger\.witnesses\.0\.key"),
        (f"[{{key: {KEY}, url: 'ftp://w1.example'}}]", r"ledger\.witnesses\.0\.url"),
        (f"[{{key: {KEY}, url: 'https://a'}}, {{key: {KEY}, url: 'https://b'}}]", "one name"),
    ],
)
def test_witnesses_that_cannot_be_asked(tmp_path: Path, witnesses: str, said: str) -> None:
    with pytest.raises(StartRefused, match=said):
        settings(tmp_path, f"ledger: {{witnesses: {witnesses}}}")


def told(folder: Path, text: str, **variables: str) -> tuple[NotifySettings, ...]:
    (folder / "proveout.yaml").write_text(f"notify: {text}")
    return read({"PROVEOUT_CONFIG": str(folder / "proveout.yaml"), "PROVEOUT_DATA": str(folder), **variables}).notify


def test_who_is_told(tmp_path: Path) -> None:
    text = """
    - {webhook: https://alerts.example/in, secret_env: SECRET, on: [rollback, break-glass], apps: [desk]}
    - chat: https://chat.example/hooks/x
    - email: {to: [a@example.com], from: b@example.com, smtp: 'smtp://mail.example', user_env: USER, password_env: WORD}
    """
    given = told(tmp_path, text, SECRET="whsec_" + "A" * 32, USER="proveout", WORD="hush")
    webhook, chat, mail = given
    assert webhook == NotifySettings(
        WebhookSettings("https://alerts.example/in", bytes(24)),
        frozenset({"rollback", "break-glass"}),
        frozenset({"desk"}),
    )
    assert chat == NotifySettings(ChatSettings("https://chat.example/hooks/x")) and len(chat.on) == 8
    assert mail.target == MailSettings(
        ("a@example.com",), "b@example.com", "mail.example", 587, "starttls", "proveout", "hush"
    )
    assert "hush" not in repr(given) and "hooks" not in repr(given)


@pytest.mark.parametrize(
    ("smtp", "found"),
    [
        ("smtps://mail.example", ("mail.example", 465, "implicit")),
        ("smtp://127.0.0.1:25", ("127.0.0.1", 25, "none")),
        ("smtp://[::1]:25", ("::1", 25, "none")),
        ("smtp://mail.example:25?tls=off", ("mail.example", 25, "none")),
    ],
)
def test_how_mail_goes_out(tmp_path: Path, smtp: str, found: tuple[str, int, str]) -> None:
    (given,) = told(tmp_path, f"[{{email: {{to: [a@example.com], from: b@example.com, smtp: '{smtp}'}}}}]")
    assert isinstance(given.target, MailSettings)
    assert (given.target.host, given.target.port, given.target.tls) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[{on: [rollback]}]", r"notify\.0: .*one of webhook, chat and email"),
        (
            "[{chat: https://a.example/x, webhook: https://b.example/x, secret_env: S}]",
            "one of webhook, chat and email",
        ),
        ("[{webhook: https://a.example/x}]", "a webhook needs secret_env"),
        ("[{webhook: https://a.example/x, secret_env: S}]", r"notify\.0: the variable S is not set"),
        ("[{webhook: https://a.example/x, secret_env: SHORT}]", r"notify\.0\.secret_env: SHORT must hold `whsec_`"),
        ("[{chat: 'ftp://a.example/x'}]", r"notify\.0\.chat"),
        ("[{chat: https://a.example/x, on: [weather]}]", r"notify\.0\.on\.0: .*'break-glass'"),
        ("[{chat: https://a.example/x, in: [rollback]}]", r"notify\.0\.in"),
        ("[{email: {to: ['a@b.c\\nBcc: d@e.f'], from: b@e.f, smtp: 'smtp://m'}}]", r"email\.to\.0"),
        (
            "[{chat: https://a.example/x}, {chat: https://a.example/x, on: [sync]}]",
            "notify: .*two entries name one target",
        ),
        ("[{email: {to: [a@e.f], from: b@e.f, smtp: 'smtp://m', user_env: S}}]", "both user_env and password_env"),
        ("[{email: {to: [a@e.f], from: b@e.f, smtp: 'smtp://m:port'}}]", r"notify\.0\.email\.smtp: "),
        (
            "[{email: {to: [a@e.f], from: b@e.f, smtp: 'smtp://m?tls=off', user_env: SHORT, password_env: SHORT}}]",
            "in the clear",
        ),
    ],
)
def test_who_cannot_be_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(StartRefused, match=says):
        told(tmp_path, text, SHORT="c2hvcnQ=")
