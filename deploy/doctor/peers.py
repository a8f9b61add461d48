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
    about, url = f"upstreams.{name}", urlsplit(server)
    context: ssl.SSLContext | None = None
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=upstream.tls.ca if upstream.tls is not None else None)
    hostname = upstream.tls.server_name if upstream.tls is not None else None
    port = url.port or (443 if context else 80)
    try:
        async with asyncio.timeout(SECONDS):
            named = (hostname or url.hostname) if context else None
            _, writer = await asyncio.open_connection(url.hostname, port, ssl=context, server_hostname=named)
    except (OSError, TimeoutError) as error:  # ssl.SSLError is one, too
        why = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
        return Finding("wrong", about, f"{server} cannot be reached: {why}", "start it, or correct servers and tls")
    peer: Any = writer.get_extra_info("peercert") if context else None
    writer.close()
    if upstream.health is not None:
        wrong = await _unhealthy(server, upstream, context, hostname)
        if wrong:
            return Finding("wrong", about, f"{server}{upstream.health.path} {wrong}", "look at the service and at health.path")
    if peer:
        found = ending(about, int(ssl.cert_time_to_seconds(peer["notAfter"]) * 1000), clock.now_ms())
        return found._replace(text=f"{server} answers; {found.text}")
    return Finding("ok", about, f"{server} answers")


async def _unhealthy(server: str, upstream: Upstream, context: ssl.SSLContext | None, hostname: str | None) -> str:
    """The problem in the answer to the health check; ``""``: none."""
    path = upstream.health.path if upstream.health is not None else "/"
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(server + path, ssl=context or True, server_hostname=hostname, allow_redirects=False) as response,
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
            "wrong", about, "publishes no usable authorization or token endpoint: nobody can log in by browser", "ask the provider"
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
    peer: Any = client.get_transport_info("peercert")
    said = f"{where} answers{'and accepts the login' if client.is_connected and Relay.parse(mail.smtp.get_secret_value()).username else ''}"
    client.close()
    if peer:
        found = ending(about, int(ssl.cert_time_to_seconds(peer["notAfter"]) * 1000), clock.now_ms())
        return found._replace(text=f"{said}; {found.text}")
    return Finding("ok", about, said)


def called(settings: AdminSettings) -> list[tuple[str, str]]:
    """The other services that the admin service calls, by setting. Nothing is sent to them."""
    found = [("oidc.issuer", settings.oidc.issuer)] if settings.oidc.issuer.startswith("https:") else []
    found += [("webhooks.url", settings.webhooks.url)] if settings.webhooks is not None else []
    return found + [(f"upstreams.{name}.key_events", upstream.url) for name, upstream in settings.upstreams.items()]


async def reachable(about: str, target: str) -> Finding:
    """Check that a server accepts connections and, for ``https``, when its certificate expires."""
    url = urlsplit(target)
    context = ssl.create_default_context() if url.scheme == "https" else None
    where = f"{url.hostname}:{url.port or (443 if context else 80)}"
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(url.hostname, url.port or (443 if context else 80), ssl=context)
    except (OSError, TimeoutError) as error:  # ssl.SSLError is one, too
        why = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
        return Finding("wrong", about, f"{where} cannot be reached: {why}", "start it, or correct the address")
    peer: Any = writer.get_extra_info("peercert") if context else None
    writer.close()
    if peer:
        found = ending(about, int(ssl.cert_time_to_seconds(peer["notAfter"]) * 1000), clock.now_ms())
        return found._replace(text=f"{where} answers; {found.text}")
    return Finding("ok", about, f"{where} answers")
