"""The commands' client of the internal API: address, token, search filters, output."""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import click

from deploy.cli.arguments import identifier, moment, network, service_url
from deploy.client import Reply, ask, explanation

_DEFAULT_TOKEN = Path(".gerbang/secrets/internal-token")
_WHERE = "The admin service's listen.internal is given by --url or GERBANG_INTERNAL_URL."
_TOKEN = re.compile(r"[ -~]+")
_PAGE = 1_000

_ABSENT = ("not_found", "Not found")
"""Code and title of the admin service's refusal for an unknown account or key (``admin.errors.NotFound``). Its public port and a gateway's
ops port use the same code for unknown paths.
"""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
Tell = Callable[..., None]
"""As ``click.echo``."""


class Internal(NamedTuple):
    """The internal API: its base URL, and the file of the token."""

    url: str
    token_file: Path

    def call(self, method: str, path: str, body: object = None, *, or_none: bool = False) -> Any:
        """Call an endpoint. Returns the answer's JSON.

        :param or_none: return ``None`` if there is no such account or key
        :raises click.ClickException: the refusal's text
        """
        token, where = _token(self.token_file)
        _check_utf_8(body)
        reply = ask(method, f"{self.url}/internal/v1/{path}", body=body, token=token, seconds=60, advice=_WHERE)
        if reply.status == 401:
            raise click.ClickException(
                f"{self.url} did not accept the service token from {where}.\n"
                "It must be that admin service's internal.token, or one of its internal.tokens.\n"
                "A changed token takes effect after a reload."
            )
        if not _of_internal_api(reply):
            raise click.ClickException(
                f"{self.url} is not the internal port of an admin service: it answered {reply.status} to {method} /internal/v1/{path}.\n"
                "Set --url to the admin service's listen.internal."
            )
        if reply.status == 404 and or_none:
            return None
        if reply.status >= 400:
            raise click.ClickException(explanation(reply))
        return reply.content

    def search(self, what: str, filters: Mapping[str, object], limit: int) -> dict[str, Any]:
        """Fetch matches page by page, up to ``limit``, as ``{what: […], "count": …}``; ``count`` is the total.

        :raises click.ClickException: the given account or key does not exist
        """
        _check_utf_8(filters)
        found: dict[str, Any] = {what: [], "count": 0}
        cursor: object = None
        while len(found[what]) < limit:
            asked = {**filters, "limit": min(_PAGE, limit - len(found[what])), **({} if cursor is None else {"cursor": cursor})}
            page = self.call("GET", f"{what if what != 'events' else 'audit'}?{urlencode(asked)}")
            found[what] += page[what]
            found["count"] = page["count"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        if not found["count"] and what != "accounts":
            self.check_known(filters)
        return found

    def check_known(self, filters: Mapping[str, object]) -> None:
        """Tell a mistyped id from one of which nothing matches.

        :raises click.ClickException: the given account or key does not exist
        """
        for what in ("account", "key"):
            its_id = filters.get(what)
            if its_id is not None and self.call("GET", f"{what}s/{quote(str(its_id), safe='')}", or_none=True) is None:
                raise click.ClickException(f"there is no {what} {its_id}")


def _check_utf_8(values: object) -> None:
    """:raises click.UsageError: an argument is not UTF-8, which Python reads as lone surrogates"""
    try:
        json.dumps(values, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise click.UsageError("an argument is not UTF-8 text") from None


def _of_internal_api(reply: Reply) -> bool:
    """Whether the reply can be from an admin service's internal API: another server's 404 does not mean that a key does not exist, nor its
    200 that it was revoked.
    """
    content = reply.content
    if reply.status == 404:
        return isinstance(content, dict) and (content.get("code"), content.get("title")) == _ABSENT
    return reply.status >= 400 or (isinstance(content, dict) and ("id" in content or "count" in content))


def internal(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the two options of commands that call the internal API, passed as ``office: Internal``."""
    from functools import wraps

    @wraps(command)
    def with_office(*, url: str, token_file: Path, **arguments: Any) -> None:
        command(office=Internal(url, token_file), **arguments)

    where = click.option(
        "--url",
        callback=service_url,
        default="http://127.0.0.1:8093",
        show_default=True,
        envvar="GERBANG_INTERNAL_URL",
        show_envvar=True,
        help="The admin service's internal port.",
    )
    token = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="GERBANG_INTERNAL_TOKEN_FILE",
        show_envvar=True,
        default=_DEFAULT_TOKEN,
        show_default=True,
        help="File with the service token; GERBANG_INTERNAL_TOKEN itself comes first.",
    )
    return where(token(with_office))


_FILTERS: dict[str, Decorator] = {
    "account": click.option("--account", callback=identifier, help="The account's id (the identity provider's sub)."),
    "email": click.option("--email", help="Part of the account's e-mail address, case-insensitive."),
    "label": click.option("--label", help="Part of the key's label, case-insensitive."),
    "ip": click.option("--ip", callback=network, help="An address or a network."),
    "scope": click.option("--scope", type=click.Choice(["read", "trade"]), help="Keys with this permission."),
    "unrestricted": click.option("--unrestricted/--whitelisted", default=None, help="Keys without an IP allowlist, or with one."),
    "unused_since": click.option(
        "--unused-since", callback=moment, help="Keys not used since then, or never, new ones included (see --until)."
    ),
    "since": click.option("--since", callback=moment, help="From then on: 2026-11-24T21:05:57Z, 2026-11-24, 30m, 12h or 90d ago."),
    "until": click.option("--until", callback=moment, help="Before then."),
    "key": click.option("--key", callback=identifier, help="A key's id."),
}
KEY_FILTERS = ("account", "email", "label", "ip", "scope", "unrestricted", "unused_since", "since", "until")


def filters(*names: str) -> Decorator:
    """Options of a search, named as in the internal API."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = _FILTERS[name](command)
        return command

    return decorate


def listing(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the options of list commands."""
    limit = click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Maximum number of results.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON: the results, and the count of all matches.")
    return limit(as_json(internal(command)))


def always_json(command: Callable[..., None]) -> Callable[..., None]:
    """Accepts ``--json`` on commands that always print JSON, so that all such commands accept it."""
    return click.option("--json", is_flag=True, expose_value=False, help="Print JSON (the default).")(command)


def given(filters: Mapping[str, object]) -> dict[str, object]:
    """The given filters, as query parameters of the internal API."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in filters.items() if value is not None}


@contextmanager
def telling() -> Iterator[Tell]:
    """``click.echo`` for a command that changes something: output that is closed (``| head``) or cannot be written does not end the command
    halfway. It is reported at the end.

    :raises click.ClickException: some of the output was lost, of a command that was carried out
    """
    lost: list[OSError] = []

    def tell(text: str, *, err: bool = False) -> None:
        try:
            click.echo(text, err=err)
        except OSError as error:
            lost.append(error)
            if not err:  # what its buffer holds cannot be written when the process ends, either
                sys.stdout = io.StringIO()

    yield tell
    if lost:
        raise click.ClickException(f"this was carried out, but not all of it could be printed: {lost[0].strerror}")


def show(answer: Any, tell: Tell = click.echo) -> None:
    """Print an answer as JSON."""
    tell(json.dumps(answer, indent=2, ensure_ascii=False))


def show_found(found: dict[str, Any], what: str, line: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    """Print results, one per line, and their number on standard error, so that the output can be piped."""
    if as_json:
        show(found)
        return
    for each in found[what]:
        click.echo(line(each))
    shown, count = len(found[what]), found["count"]
    click.echo(f"{count} found" if shown == count else f"{count} found, {shown} shown: see --limit", err=True)


def _token(path: Path) -> tuple[str, str]:
    """The service token, and where it was found.

    :raises click.ClickException: it cannot be read, or is not a token; the message never contains it
    """
    token, where = os.environ.get("GERBANG_INTERNAL_TOKEN", ""), "the variable GERBANG_INTERNAL_TOKEN"
    if not token:
        where = f"the file {path} (--token-file)"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise click.ClickException(
                f"the service token {path} cannot be read: {error.strerror}.\n"
                "Set --token-file or GERBANG_INTERNAL_TOKEN_FILE, and --url or GERBANG_INTERNAL_URL to the admin service's listen.internal."
            ) from None
        except UnicodeDecodeError:
            raise click.ClickException(f"the service token {path} is not UTF-8 text") from None
    if not _TOKEN.fullmatch(token):
        raise click.ClickException(f"{where} contains no service token: a token is one line of ASCII characters")
    return token, where
