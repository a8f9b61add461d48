"""Parsing of mail server URLs and mail addresses. Pure."""

import re
from email.headerregistry import Address
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from gateway.config.values import is_host

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# HTML's "valid email address": RFC 5322 without comments, quoting and folding, which only attackers use.
_LOCAL_PART = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = rf"{_LOCAL_PART}@{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = re.compile(rf"(?P<bare>{_ADDRESS})|(?P<name>[^<>\"\\,;:@]{{1,64}}) <(?P<named>{_ADDRESS})>")

_SMTP_FORM = 'write the mail server as "smtps://USER:PASSWORD@HOST[:PORT]" or "smtp://…", special characters percent-encoded'


class Relay(NamedTuple):
    """A mail server."""

    host: str
    port: int
    tls: bool
    """TLS from the first byte (RFC 8314 §3.3)."""
    username: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> Self:
        """:raises ValueError: not a mail server's URL; the message shows the syntax, but not the input"""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_SMTP_FORM) from None
        beyond = parts.path not in ("", "/") or parts.query or parts.fragment
        if (
            parts.scheme not in ("smtp", "smtps")
            or not parts.hostname
            or not is_host(parts.hostname)
            or port == 0
            or beyond
            or (parts.password and not parts.username)
        ):
            raise ValueError(_SMTP_FORM)
        tls = parts.scheme == "smtps"
        username, password = (None if value is None else unquote(value) for value in (parts.username, parts.password))
        return cls(parts.hostname, port or (465 if tls else 587), tls, username, password)

    @property
    def start_tls(self) -> bool:
        """Whether STARTTLS is required, not just used if offered (RFC 3207 §6): for every server not on this machine."""
        return not self.tls and self.host not in LOOPBACK

    def __repr__(self) -> str:
        return f"<Relay {self.host}:{self.port}>"


def mailbox(text: str) -> Address:
    """``name@host`` or ``Name <name@host>``: exactly one mailbox.

    :raises ValueError: anything else
    """
    match = _MAILBOX.fullmatch(text)
    if match is None or not text.isprintable() or len(text) > 320:
        raise ValueError('write an address as "keys@exchange.example" or "Exchange <keys@exchange.example>"')
    return Address(match["name"] or "", addr_spec=match["bare"] or match["named"])
