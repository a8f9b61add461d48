"""Delivery by mail: text and HTML in the account's language, by SMTP (RFC 5321)."""

import html
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

import aiosmtplib

from admin.config import Mail
from admin.notices.delivery import ChannelDown, Deliver, NotDelivered, Undeliverable
from admin.notices.letters import Letter, Letters, one_line
from admin.outbox import Channel, Pending, Topic
from admin.relay import Relay, mailbox


class MailChannel:
    """A :class:`~admin.notices.delivery.Route`.

    :param site_name: the site's name, which ends each mail
    :param public_url: base URL of the links
    :param notify: addresses that are notified of operators' bulk actions
    """

    channel = Channel.MAIL

    def __init__(self, settings: Mail, *, site_name: str, public_url: str, notify: Sequence[str] = ()) -> None:
        self._notify = tuple(mailbox(address) for address in notify)
        self._relay = Relay.parse(settings.smtp.get_secret_value())
        self._sender = mailbox(settings.sender)
        self._timeout_s = settings.timeout_ms / 1000
        self._letters = Letters(settings.time_zone)
        self._site_name = one_line(site_name)
        self._public_url = public_url.rstrip("/")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Deliver]:
        """One connection, opened for the first mail and kept for the next ones."""
        client = self.client()

        async def deliver(notice: Pending, now_ms: int) -> None:
            del now_ms  # a mail is dated by its event
            message = self.message(notice)
            try:
                if not client.is_connected:
                    await client.connect()
                await client.send_message(
                    message, sender=self._sender.addr_spec, recipients=[str(each.addr_spec) for each in message["To"].addresses]
                )
            except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPDataError, aiosmtplib.SMTPNotSupported) as error:
                raise NotDelivered(_description(error)) from None
            except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
                client.close()
                raise ChannelDown(_description(error)) from None

        try:
            yield deliver
        finally:
            client.close()

    def message(self, notice: Pending) -> EmailMessage:
        """:raises Undeliverable: there is no address to send it to"""
        recipients = self._notify if notice.topic is Topic.KEYS_REVOKED else _owner(notice)
        if not recipients:
            raise Undeliverable("internal.notify is empty")
        letter = self._letters.write(notice)
        link = self._public_url + letter.path
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = [Address(addr_spec=each.addr_spec) for each in recipients]
        message["Subject"] = letter.subject
        message["Date"] = datetime.fromtimestamp(notice.at_ms // 1000, UTC)
        message["Message-ID"] = f"<{notice.id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: suppresses automatic replies
        message.set_content(_as_text(letter, link, self._site_name))
        message.add_alternative(_as_html(letter, link, self._site_name), subtype="html")
        message["Content-Language"] = letter.language
        return message

    def client(self) -> aiosmtplib.SMTP:
        """A client for the mail server, not connected yet; it logs in when it connects."""
        relay = self._relay
        return aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            use_tls=relay.tls,
            start_tls=relay.start_tls,
            username=relay.username,
            password=relay.password,
            timeout=self._timeout_s,
            local_hostname=self._sender.domain,
        )


def _owner(notice: Pending) -> tuple[Address, ...]:
    try:
        return (mailbox(notice.email or ""),)
    except ValueError:
        raise Undeliverable("the account has no mail address") from None


def _description(error: BaseException) -> str:
    """The kind of an error and the server's code, for the log. The server's text may repeat an address or a password."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {code}" if code is not None else type(error).__name__


def _as_text(letter: Letter, link: str, site_name: str) -> str:
    facts = "\n".join(f"{name}: {value}" for name, value in letter.facts)
    way = f"{letter.action}: {link}\n\n" if letter.action else ""
    return f"{letter.happened}\n\n{facts}\n\n{letter.advice}\n\n{way}-- \n{site_name}\n"


def _as_html(letter: Letter, link: str, site_name: str) -> str:
    """Simple enough for every mail client; no external resources."""
    quoted = html.escape
    rows = "".join(
        f'<tr><th align="left" valign="top" style="padding:4px 16px 4px 0">{quoted(name)}</th><td>{quoted(value)}</td></tr>'
        for name, value in letter.facts
    )
    way = f'<p><a href="{quoted(link)}">{quoted(letter.action)}</a></p>' if letter.action else ""
    return (
        '<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{quoted(letter.subject)}</title></head>"
        '<body style="font-family:sans-serif;font-size:16px;line-height:1.5;color:#1a1a1a;max-width:600px;margin:0 auto;padding:24px">'
        f'<h1 style="font-size:20px">{quoted(letter.subject)}</h1><p>{quoted(letter.happened)}</p>'
        f'<table style="border-collapse:collapse">{rows}</table><p>{quoted(letter.advice)}</p>'
        f'{way}<p style="color:#666">{quoted(site_name)}</p></body></html>\n'
    )
