"""Argument types that several commands share."""

import re
from ipaddress import ip_network
from typing import TypeVar
from urllib.parse import urlsplit

import click

from gateway.runtime import clock, moments

OPS_ADVICE = "A gateway's listen.ops is given by --ops or GERBANG_OPS_URL."
_ID = re.compile(r"[!-~]{1,255}")
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
# No user, query or fragment, since an endpoint's path is appended.
_URL = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[!\"$->@-~]*)?")
_HOST_PORT = re.compile(rf"{_HOST}:[0-9]{{1,5}}")


def service_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The base URL of a service, without a trailing slash; ``HOST:PORT`` means plain HTTP."""
    url = f"http://{value}" if _HOST_PORT.fullmatch(value) else value
    if not _URL.fullmatch(url) or not _has_usable_port(url):
        raise click.BadParameter(f"{value!r} is not a service's URL: write http://HOST:PORT, https://HOST:PORT, or just HOST:PORT")
    return url.rstrip("/")


ValueT = TypeVar("ValueT", str, None)


def identifier(_context: click.Context, _parameter: click.Parameter, value: ValueT) -> ValueT:
    """The id of an account or a key, as accepted by the admin service."""
    if value is not None and not _ID.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not an id: write 1 to 255 visible ASCII characters, without spaces")
    return value


def identifiers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Several ids."""
    return tuple(identifier(context, parameter, value) for value in values)


def moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A time as RFC 3339, converted once, so that repeated requests use the same time."""
    if value is None:
        return None
    try:
        return moments.rfc3339(moments.parse(value, clock.now_ms()))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def network(_context: click.Context, _parameter: click.Parameter, value: ValueT) -> ValueT:
    """An address or a network."""
    try:
        if value is not None:
            ip_network(value, strict=False)
    except ValueError:
        raise click.BadParameter(f'{value!r} is not an IP address or network: write it as e.g. "203.0.113.7" or "2001:db8::/32"') from None
    return value


def words(_context: click.Context, _parameter: click.Parameter, value: ValueT) -> ValueT:
    """Text that is not blank."""
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty: give a short reason")
    return value


def _has_usable_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
