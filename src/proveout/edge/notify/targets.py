"""Who is told: a webhook, a chat, people by e-mail. Each says of itself only what is no secret."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import smtplib
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from hashlib import blake2b
from html import escape
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from proveout.configfile import Topic
from proveout.edge.notify.messages import Notification
from proveout.settings import ChatSettings, MailSettings, NotifySettings, WebhookSettings

SECONDS = 20.0  # that an attempt may take
_STEP_SECONDS = 10.0  # that one step of talking to a mail server may take
_UNACCEPTABLE = (400, 413, 422)


class Undelivered(Exception):
    """Why a target did not take a notification. `refused`: this one, so that sending it again is of little use."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Channel(Protocol):
    """A way to a target. `send` returns when the target has taken the notification, and raises Undelivered."""

    @property
    def name(self) -> str: ...

    async def send(self, given: Notification) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who is told, and of what."""

    channel: Channel
    on: frozenset[Topic]
    apps: frozenset[str] | None

    @property
    def name(self) -> str:
        return self.channel.name

    def wants(self, given: Notification) -> bool:
        """Whether it is to be told. What concerns no single app concerns every target."""
        return given.type in self.on and (self.apps is None or given.app is None or given.app in self.apps)

    async def send(self, given: Notification) -> None:
        """Sends it, within 20 s. Raises Undelivered."""
        try:
            await asyncio.wait_for(self.channel.send(given), SECONDS)
        except TimeoutError:
            raise Undelivered(f"no answer within {SECONDS:.0f} s") from None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as Standard Webhooks 1.0 has it: https://github.com/standard-webhooks/standard-webhooks."""

    told: WebhookSettings

    @property
    def name(self) -> str:
        return _named("webhook", self.told.url)

    async def send(self, given: Notification) -> None:
        body, now = given.body, str(int(time.time()))
        signed = hmac.digest(self.told.secret, f"{given.id}.{now}.".encode() + body, "sha256")
        signature = "v1," + base64.b64encode(signed).decode()
        headers = {"webhook-id": given.id, "webhook-timestamp": now, "webhook-signature": signature}
        await _post(self.told.url, body, headers)


@dataclass(frozen=True, slots=True)
class Chat:
    """An incoming webhook as Slack and Mattermost have it."""

    told: ChatSettings

    @property
    def name(self) -> str:
        return _named("chat", self.told.url)

    async def send(self, given: Notification) -> None:
        # Slack reads < and & as its own marks, `<!channel>` among them.
        text = escape("\n".join(filter(None, (given.title, given.text, given.link))), quote=False)
        await _post(self.told.url, msgspec.json.encode({"text": text}), {})


@dataclass(frozen=True, slots=True)
class Mail:
    """E-mail through one server."""

    told: MailSettings

    @property
    def name(self) -> str:
        told = self.told
        to = ", ".join(told.to[:2]) + (f" and {len(told.to) - 2} more" if len(told.to) > 2 else "")
        return f"email {to} ({_mark(f'{told.host}:{told.port} {sorted(told.to)}')})"

    async def send(self, given: Notification) -> None:
        try:
            await asyncio.to_thread(self._send, given)
        except smtplib.SMTPDataError as error:
            raise Undelivered(_said(error.smtp_code, error.smtp_error), refused=error.smtp_code >= 500) from None
        except smtplib.SMTPResponseException as error:
            raise Undelivered(_said(error.smtp_code, error.smtp_error)) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise Undelivered("; ".join(_said(*answer) for answer in error.recipients.values())) from None
        except (smtplib.SMTPException, OSError, UnicodeError) as error:  # ssl.SSLError is an OSError
            raise Undelivered(_why(error)) from None

    def _send(self, given: Notification) -> None:
        told = self.told
        context = ssl.create_default_context()
        if told.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(told.host, told.port, timeout=_STEP_SECONDS, context=context)
        else:
            server = smtplib.SMTP(told.host, told.port, timeout=_STEP_SECONDS)
        with server:
            if told.tls == "starttls":
                server.starttls(context=context)
            if told.user is not None and told.password is not None:
                server.login(told.user, told.password)
            server.send_message(self.letter(given))

    def letter(self, given: Notification) -> EmailMessage:
        """The e-mail. Its Message-ID is the notification's, so that a second copy is known as one."""
        letter = EmailMessage(policy=SMTP)
        letter["Subject"] = given.title
        letter["From"] = self.told.sender
        letter["To"] = ", ".join(self.told.to)
        letter["Date"] = given.time
        letter["Message-ID"] = f"<{given.id}@{self.told.sender.partition('@')[2]}>"
        letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers from machines
        told = (given.text, given.link, f"{given.id}, {given.time:%Y-%m-%d %H:%M:%S %Z}")
        letter.set_content("\n\n".join(filter(None, told)) + "\n")
        return letter


def targets(told: Sequence[NotifySettings]) -> list[Target]:
    """The targets that are configured."""
    return [Target(_channel(one), one.on, one.apps) for one in told]


def _channel(told: NotifySettings) -> Channel:
    match told.target:
        case WebhookSettings():
            return Webhook(told.target)
        case ChatSettings():
            return Chat(told.target)
        case MailSettings():
            return Mail(told.target)


async def _post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    timeout = aiohttp.ClientTimeout(total=_STEP_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=body, headers={"content-type": "application/json", **headers}, allow_redirects=False
            ) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise Undelivered(_why(error)) from None
    if not 200 <= status < 300:
        raise Undelivered(f"it answered {status}", refused=status in _UNACCEPTABLE)


def _why(error: Exception) -> str:
    """The reason without an address, which may hold a secret."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its certificate cannot be verified"
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, ConnectionError) and inner.errno:
        return os.strerror(inner.errno)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return " ".join(str(inner).split())[:200] if isinstance(inner, smtplib.SMTPException) else type(inner).__name__


def _said(code: int, words: bytes | str) -> str:
    text = words.decode(errors="replace") if isinstance(words, bytes) else words
    return f"it answered {code} " + "".join(c for c in " ".join(text.split()) if c.isprintable())[:200]


def _named(kind: str, url: str) -> str:
    return f"{kind} {urlsplit(url).hostname} ({_mark(url)})"


def _mark(text: str) -> str:
    """Tells two targets apart that show the same."""
    return blake2b(text.encode(), digest_size=4).hexdigest()
