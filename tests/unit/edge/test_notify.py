"""What is said of events, and how it reaches a webhook, a chat and people: against real servers."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from conftest import free_port
from proveout.configfile import TOPICS
from proveout.edge.notify.messages import Notification, notification
from proveout.edge.notify.targets import Chat, Mail, Target, Undelivered, Webhook, targets
from proveout.settings import ChatSettings, MailSettings, NotifySettings, WebhookSettings
from proveout.store.events import Kind

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = bytes(range(32))
ROLLOUT = {"app": "desk", "stage": "beta", "release": 5, "stable": 4, "rollout": "rollout_1"}
GIVEN = Notification("event_1", "rollback", AT, "default", "desk@5 was rolled back in beta", "Because.", "desk", "beta")


def said(kind: Kind, by: str = "key_1", url: str = "", **facts: Any) -> Notification | None:
    event = {"kind": kind.value, "at": AT, "facts": {"by": by, **facts}, "commitment": "q6ur" * 10}
    return notification(event, "default", {"key_1": "ada"}.__getitem__, url)


@pytest.mark.parametrize(
    ("kind", "facts", "topic", "title", "words"),
    [
        (
            *(Kind.ROLLOUT_DECIDED, {**ROLLOUT, "by": "system", "action": "rolled_back", "reason": "errors: 9 of 40"}),
            *(
                "rollback",
                "desk@5 was rolled back in beta",
                "Proveout ended the rollout of desk@5 to beta: errors: 9 of",
            ),
        ),
        (
            *(Kind.ROLLOUT_DECIDED, {**ROLLOUT, "action": "promoted", "reason": "promoted by hand"}),
            *("promotion", "desk@5 was promoted to beta", "ada ended its rollout: promoted by hand"),
        ),
        (
            *(Kind.ROLLOUT_DECIDED, {**ROLLOUT, "by": "system", "action": "freeze", "reason": "the split is broken"}),
            *("frozen", "The rollout of desk@5 to beta is frozen", "proveout rollout resume desk --stage beta"),
        ),
        (
            *(Kind.ROLLOUT_DECIDED, {**ROLLOUT, "by": "system", "action": "aborted", "reason": "the deadline"}),
            *("aborted", "The rollout of desk@5 to beta was aborted", "desk@4 serves all of beta"),
        ),
        (
            *(Kind.ROLLOUT_DECIDED, {**ROLLOUT, "by": "system", "action": "held", "reason": "beta.drill: no drill"}),
            *(
                "approval",
                "The promotion of desk@5 to beta is held by its gate",
                "closed: beta.drill: no drill. It goes",
            ),
        ),
        (
            Kind.ROUTE_CHANGED,
            {"app": "desk", "stage": "beta", "stable": 4, "before": 5, "action": "rolled_back", "rollout": None},
            *("rollback", "desk@5 was rolled back in beta", "ada rolled it back by hand. desk@4 serves beta again."),
        ),
        (
            Kind.ROUTE_CHANGED,
            {"app": "desk", "stage": "beta", "stable": 1, "before": None, "action": "promoted", "rollout": None},
            *("promotion", "desk@1 was promoted to beta", "It is the stage's first release."),
        ),
        (
            Kind.GLASS_BROKEN,
            {"app": "desk", "stage": "beta", "release": 5, "reason": "fire", "lacking": ["a", "b"]},
            *("break-glass", "desk@5 entered beta without its evidence", "this reason: fire. It lacks a, b."),
        ),
        (
            Kind.APPROVAL_AWAITED,
            {"app": "desk", "stage": "beta", "release": 5, "lacking": ["1 more approval"]},
            *("approval", "desk@5 waits for approval to enter beta", "Next: 1 more approval."),
        ),
        (
            Kind.REFRESH_DECIDED,
            {**ROLLOUT, "by": "system", "knowledge": "handbook", "verdict": "failed", "reasons": ["lost 9 of 10"]},
            *(
                "refresh",
                "A new snapshot of handbook was not let into beta of desk",
                "judged failed: lost 9 of 10. desk@4",
            ),
        ),
        (
            *(Kind.SYNC_FAILED, {"knowledge": "handbook", "message": "No\n document."}),
            *("sync", "The sync of the knowledge handbook failed", "No document. What was"),
        ),
    ],
)
def test_what_is_said(kind: Kind, facts: dict[str, Any], topic: str, title: str, words: str) -> None:
    given = said(kind, **facts)
    assert given is not None and (given.type, given.title) == (topic, title) and words in given.text
    assert given.id == "event_" + "ab" * 16 and "\n" not in given.text and given.link == ""
    linked = said(kind, url="https://proveout.example.com", **facts)
    assert linked is not None
    assert re.fullmatch(
        r"https://proveout\.example\.com/(rollouts/desk/beta|releases(/desk/\d)?|operations)", linked.link
    )


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (Kind.ROLLOUT_DECIDED, {**ROLLOUT, "action": "step", "reason": "1 % → 5 %"}),
        (Kind.ROUTE_CHANGED, {"app": "desk", "stage": "beta", "candidate": 5, "weight": 0.1}),
        (
            Kind.ROUTE_CHANGED,
            {"app": "desk", "stage": "beta", "stable": 5, "action": "promoted", "rollout": "rollout_1"},
        ),
        (Kind.ROUTE_CHANGED, {"app": "desk", "stage": "beta", "stable": 5, "action": "refreshed", "rollout": None}),
        (Kind.REFRESH_DECIDED, {**ROLLOUT, "verdict": "passed", "reasons": []}),
        (Kind.ROUTE_CHANGED, {"app": "desk", "stage": "poc", "stable": 5, "action": "promoted", "rollout": None}),
    ],
)
def test_what_is_not_said(kind: Kind, facts: dict[str, Any]) -> None:
    assert said(kind, **facts) is None


def test_a_chat_and_a_letter_end_in_the_link() -> None:
    linked = replace(GIVEN, link="https://proveout.example.com/rollouts/desk/beta")
    mail = Mail(MailSettings(("a@example.com",), "b@example.com", "127.0.0.1", 25, "none"))
    assert "Because.\n\nhttps://proveout.example.com/rollouts/desk/beta\n\n" in mail.letter(linked).get_content()
    assert json.loads(linked.body)["link"] == linked.link and "http" not in mail.letter(GIVEN).get_content()


def test_what_has_expired_is_not_said() -> None:
    assert (
        notification({"kind": Kind.SYNC_FAILED.value, "at": AT, "facts": {}, "commitment": ""}, "default", str) is None
    )


def test_a_target_hears_of_its_apps_and_topics_and_of_what_concerns_none() -> None:
    target = Target(Chat(ChatSettings("https://chat.example/x")), frozenset({"rollback"}), frozenset({"desk"}))
    other = Notification("e", "rollback", AT, "default", "", "", app="shop")
    assert target.wants(GIVEN) and not target.wants(other)
    assert target.wants(Notification("e", "rollback", AT, "default", "", ""))
    assert not target.wants(Notification("e", "sync", AT, "default", "", ""))


def test_a_target_tells_no_secret_of_itself() -> None:
    told = NotifySettings(ChatSettings("https://ada:word@chat.example/services/T0/secret"))
    (target,) = targets([told])
    assert target.name.startswith("chat chat.example (") and target.on == set(TOPICS)
    assert not any(secret in f"{target.name} {told!r} {target!r}" for secret in ("secret", "word"))


# -- webhooks and chats -----------------------------------------------------------------------------


@asynccontextmanager
async def sink(*answers: int) -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A receiver that answers so, in turn, the last for ever; its address and what came."""
    came: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        came.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        status = answers[min(len(came), len(answers)) - 1]
        return web.Response(status=status, headers={"location": "/elsewhere"} if status == 302 else None)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/hook", came
    finally:
        await runner.cleanup()


def test_a_webhook_is_signed_as_the_standard_has_it() -> None:
    async def work() -> None:
        async with sink(204) as (url, came):
            await Webhook(WebhookSettings(url, SECRET)).send(GIVEN)
        ((headers, body),) = came
        told = Receiver("whsec_" + base64.b64encode(SECRET).decode()).verify(body, headers)
        assert told == {
            **{"id": "event_1", "type": "rollback", "time": "2026-11-22T12:00:00Z", "workspace": "default"},
            **{"title": GIVEN.title, "text": "Because.", "app": "desk", "stage": "beta", "link": "", "facts": {}},
        }
        assert headers["webhook-id"] == "event_1" and headers["content-type"] == "application/json"
        for wrong in (body + b" ", body.replace(b"beta", b"prod")):
            with pytest.raises(WebhookVerificationError):
                Receiver("whsec_" + base64.b64encode(SECRET).decode()).verify(wrong, headers)

    asyncio.run(work())


@pytest.mark.parametrize(("status", "refused"), [(500, False), (302, False), (404, False), (400, True), (422, True)])
def test_what_a_webhook_did_not_take(status: int, refused: bool) -> None:
    async def work() -> None:
        async with sink(status) as (url, came):
            with pytest.raises(Undelivered, match=f"^it answered {status}$") as failed:
                await Webhook(WebhookSettings(url, SECRET)).send(GIVEN)
        assert failed.value.refused is refused and len(came) == 1  # redirects are not followed

    asyncio.run(work())


def test_a_chat_gets_text_without_marks_of_its_own() -> None:
    async def work() -> None:
        async with sink(200) as (url, came):
            channel = Chat(ChatSettings(url))
            await channel.send(Notification("e", "sync", AT, "default", "Sync failed", "<!channel> & all"))
        assert json.loads(came[0][1]) == {"text": "Sync failed\n&lt;!channel&gt; &amp; all"}

    asyncio.run(work())


def test_nobody_there() -> None:
    with pytest.raises(Undelivered, match=r"^Connection refused$"):
        asyncio.run(Chat(ChatSettings(f"http://127.0.0.1:{free_port()}/secret")).send(GIVEN))


# -- e-mail -----------------------------------------------------------------------------------------


@dataclass
class Letters:
    """What a mail server took, and from whom."""

    came: list[tuple[str | None, list[str], bytes]] = field(default_factory=list)
    users: list[bytes] = field(default_factory=list)
    answer: str = "250 taken"

    async def handle_DATA(self, _: SMTP, session: Session, envelope: Envelope) -> str:
        assert session.ssl is not None or not self.users
        content = envelope.content
        self.came.append((envelope.mail_from, envelope.rcpt_tos, content if isinstance(content, bytes) else b""))
        return self.answer

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.users.append(given.login)
        return AuthResult(success=given.password == b"right", handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("mail") / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@dataclass
class MailServer:
    letters: Letters
    port: int

    def mail(self, **told: Any) -> Mail:
        given = {"tls": "starttls", "user": "proveout", "password": "right", **told}
        to = ("ada@example.com", "bob@example.com")
        return Mail(MailSettings(to, "proveout@example.com", "127.0.0.1", self.port, **given))


@pytest.fixture
def server(certificate: Path) -> Iterator[MailServer]:
    """A real mail server that wants TLS, by STARTTLS, and a password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    letters, port = Letters(), free_port()
    controller = Controller(
        letters,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=letters.authenticate,
    )
    controller.start()
    yield MailServer(letters, port)
    controller.stop()


def test_a_letter_goes_out_by_starttls_with_a_password(
    server: MailServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asyncio.run(server.mail().send(GIVEN))
    ((sender, to, content),) = server.letters.came
    assert sender == "proveout@example.com" and to == ["ada@example.com", "bob@example.com"]
    assert server.letters.users == [b"proveout"]
    for line in (b"Subject: desk@5 was rolled back in beta", b"Message-ID: <event_1@example.com>", b"Because."):
        assert line in content
    with pytest.raises(Undelivered, match=r"^it answered 535 "):
        asyncio.run(server.mail(password="wrong").send(GIVEN))
    server.letters.answer = "554 not such a letter"
    with pytest.raises(Undelivered, match=r"^it answered 554 not such a letter$") as failed:
        asyncio.run(server.mail().send(GIVEN))
    assert failed.value.refused


def test_no_letter_to_a_server_that_cannot_be_verified(server: MailServer) -> None:
    with pytest.raises(Undelivered, match="certificate cannot be verified"):
        asyncio.run(server.mail().send(GIVEN))
    with pytest.raises(Undelivered, match=r"^it answered 530 "):
        asyncio.run(server.mail(tls="none", user=None, password=None).send(GIVEN))
    assert not server.letters.came and not server.letters.users


def test_names_that_no_network_knows_end_no_worker() -> None:
    for channel in (
        Mail(MailSettings(("a@e.f",), "b@e.f", "mail..e.f", 25, "none")),
        Chat(ChatSettings("http://a..b/")),
    ):
        with pytest.raises(Undelivered):
            asyncio.run(channel.send(GIVEN))


def test_no_header_can_be_added_to_a_letter() -> None:
    mail = MailServer(Letters(), 25).mail()
    given = said(Kind.SYNC_FAILED, knowledge="a\r\nBcc: eve@example.com\r\n\r\nbody", message="x")
    assert given is not None
    letter = mail.letter(given)
    assert letter["Bcc"] is None and b"\r\nBcc:" not in letter.as_bytes().partition(b"\r\n\r\n")[0]
    with pytest.raises(ValueError, match=r"newline|linefeed"):
        mail.letter(Notification("e", "sync", AT, "default", "a\r\nBcc: eve@example.com", ""))
