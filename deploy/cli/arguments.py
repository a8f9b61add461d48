"""Click callbacks for arguments that several commands take: what is of the wrong kind is wrong usage, told with what to write."""

import re
from urllib.parse import urlsplit

import click

_ID = re.compile(r"[!-~]{1,255}")
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
# No user, query or fragment: an endpoint's path is put behind it.
_URL = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[!\"$->@-~]*)?")
_HOST_PORT = re.compile(rf"{_HOST}:[0-9]{{1,5}}")


def service_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The base URL of a service, without a slash at its end; ``HOST:PORT`` stands for plain HTTP."""
    url = f"http://{value}" if _HOST_PORT.fullmatch(value) else value
    if not _URL.fullmatch(url) or not _has_usable_port(url):
        raise click.BadParameter(f"{value!r} is not a service's URL: write http://HOST:PORT, https://HOST:PORT, or just HOST:PORT")
    return url.rstrip("/")


def identifier(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The id of an account or of a key, as the admin service takes it."""
    if not _ID.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not an id: write 1 to 255 visible ASCII characters, without spaces")
    return value


def words(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Text that says something."""
    if not value.strip():
        raise click.BadParameter("it is empty: say why in a few words")
    return value


def _has_usable_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
