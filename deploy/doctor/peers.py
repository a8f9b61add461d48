"""Checks of upstreams, the identity provider, webhooks, certificates, and the assertion's keys."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import aiosmtplib

from admin.config import AdminSettings, Mail
from admin.identity.provider import Discovery, Provider, ProviderUnusable
from admin.notices.mail import MailChannel
from admin.relay import Relay
from deploy.doctor.findings import SECONDS, Finding, Findings, ending
from deploy.plural import counted
from gateway.config.settings import GatewaySettings, Tls, Upstream
from gateway.net.certificates import ends_ms
from gateway.runtime import clock


def certificate(about: str, tls: Tls) -> Finding:
    try:
        return ending(about, ends_ms(tls.certificate), clock.now_ms())
    except (OSError, ValueError) as error:
        return Finding("wrong", about, f"{tls.certificate} cannot be read: {error}", "check the file and who may read it")


def assertion_keys(settings: GatewaySettings) -> Finding:
    about, folder = "assertion.keys", settings.assertion.keys
    if folder is None:
        return Finding(
            "note", about, "none: the key that signs assertions is created again at each start", "several gateways need a shared folder"
        )
    parent: Path = folder if folder.exists() else folder.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding("wrong", about, f"{parent} cannot be written by this user", "make it writable for the user that the gateway runs as")
    return Finding("ok", about, f"{folder} can be written")


async def upstream_server(name: str, upstream: Upstream, server: str) -> Finding:
    about, tls = f"upstreams.{name}", upstream.tls
    context = ssl.create_default_context(cafile=tls.ca if tls is not None else None) if server.startswith("https:") else None
    server_name = tls.server_name if tls is not None else None
    found = await reachable(about, server, context, server_name)
    if found.level == "wrong" or upstream.health is None:
        return found
    wrong = await _unhealthy(server + upstream.health.path, context, server_name)
    return Finding("wrong", about, f"{server}{upstream.health.path} {wrong}", "look at the service and at health.path") if wrong else found


async def reachable(about: str, target: str, context: ssl.SSLContext | None = None, server_name: str | None = None) -> Finding:
    """Check that a server accepts connections and, for ``https``, when its certificate expires.

    :param context: for ``https``; ``None``: the system's
    :param server_name: the name in its certificate, if it is not that of the URL
    """
    url = urlsplit(target)
    if url.scheme == "https" and context is None:
        context = ssl.create_default_context()
    port, named = url.port or (443 if context else 80), (server_name or url.hostname) if context else None
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(url.hostname, port, ssl=context, server_hostname=named)
    except (OSError, TimeoutError) as error:  # ssl.SSLError is one, too
        why = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
        return Finding("wrong", about, f"{url.hostname}:{port} cannot be reached: {why}", f"start it, or correct {about}")
    writer.close()
    return _answers(about, f"{url.hostname}:{port} answers", writer.get_extra_info("peercert"))


def _answers(about: str, text: str, certificate: Any) -> Finding:
    """That a server answers, and when its certificate expires, if it has one."""
    if not certificate:
        return Finding("ok", about, text)
    found = ending(about, int(ssl.cert_time_to_seconds(certificate["notAfter"]) * 1000), clock.now_ms())
    return found._replace(text=f"{text}; {found.text}")


async def _unhealthy(url: str, context: ssl.SSLContext | None, server_name: str | None) -> str:
    """The problem in the answer to the health check; ``""``: none."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(url, ssl=context or True, server_hostname=server_name, allow_redirects=False) as response,
        ):
            return "" if 200 <= response.status < 300 else f"answers {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"does not answer: {type(error).__name__}"


async def provider(settings: AdminSettings) -> Findings:
    about = "oidc.issuer"
    async with aiohttp.ClientSession() as http:
        try:
            discovery, keys = await Provider(http, settings.oidc).read()
        except ProviderUnusable as error:
            yield Finding("wrong", about, str(error), "check the issuer's URL and whether this machine may reach it")
            return
    yield Finding("ok", about, f"{settings.oidc.issuer} publishes {counted(len(keys), 'key')}")
    if discovery.authorization_endpoint is None or discovery.token_endpoint is None:
        yield Finding(
            "wrong", about, "publishes no usable authorization or token endpoint: browser logins are not possible", "ask the provider"
        )
    for finding in provider_as_configured(settings, discovery):
        yield finding


def provider_as_configured(settings: AdminSettings, discovery: Discovery) -> list[Finding]:
    """Compare the provider's published capabilities with the settings. Unpublished ones are not checked."""
    oidc, found = settings.oidc, []
    for name in ("email", settings.kyc.claim):
        if discovery.claims is not None and name not in discovery.claims:
            text = f"does not list the claim {name!r} in claims_supported"
            found.append(
                Finding("note", "oidc.scopes", text, "check that logins include it: the admin service logs claim_absent if it is missing")
            )
    unknown = [scope for scope in oidc.scopes if discovery.scopes is not None and scope not in discovery.scopes]
    if unknown:
        found.append(Finding("wrong", "oidc.scopes", f"the provider does not know {', '.join(unknown)}", "name scopes that it publishes"))
    if discovery.algorithms is not None and not discovery.algorithms & set(oidc.algorithms):
        text = f"the provider signs by {', '.join(sorted(discovery.algorithms))} and none of these is accepted"
        found.append(Finding("wrong", "oidc.algorithms", text, "add the algorithm that it uses for this client"))
    method = {"header": "client_secret_basic", "body": "client_secret_post"}[oidc.client_authentication]
    if oidc.client_secret is not None and method not in discovery.client_authentication:
        text = f"the provider does not take {method}"
        found.append(Finding("wrong", "oidc.client_authentication", text, 'choose "header" or "body" as it documents'))
    return found


async def mail_server(mail: Mail) -> Finding:
    """Check connection, TLS and login of the mail server. No mail is sent."""
    about, client = "mail.smtp", MailChannel(mail, site_name="", public_url="").client()
    where = f"{client.hostname}:{client.port}"
    try:
        async with asyncio.timeout(SECONDS):
            await client.connect()
    except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
        code = getattr(error, "code", None)
        why = getattr(error, "verify_message", None) or (f"{type(error).__name__} {code}" if code else type(error).__name__)
        return Finding("wrong", about, f"{where} does not accept mail: {why}", "check the host, its TLS support, the user and the password")
    certificate = client.get_transport_info("peercert")
    client.close()
    has_login = Relay.parse(mail.smtp.get_secret_value()).username is not None
    return _answers(about, f"{where} answers{' and accepts the login' if has_login else ''}", certificate)


def called(settings: AdminSettings) -> list[tuple[str, str]]:
    """The other services that the admin service calls, by setting. Nothing is sent to them."""
    found = [("oidc.issuer", settings.oidc.issuer)] if settings.oidc.issuer.startswith("https:") else []
    found += [("webhooks.url", settings.webhooks.url)] if settings.webhooks is not None else []
    return found + [(f"upstreams.{name}.key_events", upstream.url) for name, upstream in settings.upstreams.items()]
