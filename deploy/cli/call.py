"""``gerbang call``: sign and send one request, and explain a refusal."""

import json
import os
import re
import secrets
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import click

from deploy.cli.key_file import key_option, read_key
from gateway.runtime.clock import now_ms

if TYPE_CHECKING:
    from deploy.signing import Outgoing

_TIMEOUT_S = 30
_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A token (RFC 9110 §5.6.2). Anything else would change the request line."""


@click.command()
@click.argument("method")
@click.argument("url")
@key_option(help="Key file; without one the request is not signed.")
@click.option("--dialect", type=click.Choice(["mobee", "binance", "rfc9421"]), help="Signature dialect; default: the key file's.")
@click.option("--data", default="", help="The request's body: JSON, or a form.")
def call(method: str, url: str, key_file: Path | None, dialect: str | None, data: str) -> None:
    r"""Sign a request with a key file and send it. Prints status, body and, on a refusal, what to do about it.

    A key file is JSON: {"key_id": "gbk_…", "secret": "gbs_…", "dialect": "mobee"}, or with "private_key" (PEM) in place of
    "secret" for Ed25519 and RSA. METHOD and URL are sent exactly as given.

    \b
    Example: gerbang call GET http://127.0.0.1:8080/v1/wallets --key .gerbang/demo-key.json
             gerbang call POST http://127.0.0.1:8080/v1/orders --key .gerbang/demo-key.json --data '{"symbol":"BTC-IDR",
               "side":"buy","type":"limit","price":"900000000","quantity":"0.001"}'
    """
    if not _METHOD.fullmatch(method):
        raise click.UsageError("METHOD must be one word, e.g. GET or POST")
    target = _target(url)
    body = os.fsencode(data)  # exactly the bytes that were given
    if key_file is None:
        from deploy.signing import Outgoing, content_type

        if dialect is not None:
            raise click.UsageError("--dialect requires a key file: --key FILE")
        request = Outgoing(method, target, content_type(body), body, "")
    else:
        from deploy.signing import sign

        key, own_dialect = read_key(key_file)
        request = sign(dialect or own_dialect, key, method, target, body, now_ms=now_ms(), nonce=secrets.token_urlsafe(16))
    answer = _send(url, request)
    click.echo(f"{answer.status} {answer.reason}")
    if answer.body:
        click.echo(answer.body.decode(errors="replace"))
    if answer.status >= 400:
        for line in advice(answer, request):
            click.echo(line, err=True)
        raise SystemExit(1)


class Answer(NamedTuple):
    status: int
    reason: str
    body: bytes


def _target(url: str) -> str:
    """Path and query of the URL exactly as written."""
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        raise click.UsageError("the URL must be visible ASCII without '#': percent-encode the rest, e.g. %20 for a space")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise click.UsageError("the URL must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")
    _, _, rest = url.partition("://")
    slash = min((place for place in (rest.find("/"), rest.find("?")) if place >= 0), default=len(rest))
    target = rest[slash:]
    return target if target.startswith("/") else "/" + target


def _send(url: str, request: "Outgoing") -> Answer:
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request(request.method, request.target, request.body or None, request.headers)
        response = connection.getresponse()
        return Answer(response.status, response.reason, response.read())
    except TimeoutError:
        raise click.ClickException(f"{parts.netloc} did not answer within {_TIMEOUT_S} s") from None
    except OSError as error:
        raise click.ClickException(f"{parts.netloc} cannot be reached: {error.strerror or error}") from None
    except (HTTPException, ValueError) as error:
        raise click.ClickException(f"this cannot be sent, or the answer is not HTTP: {error}") from None
    finally:
        connection.close()


def advice(answer: Answer, request: "Outgoing") -> list[str]:
    """What the caller can do about a refusal, in addition to the gate's own detail."""
    problem = _problem(answer)
    if problem is None:
        return ["This answer comes from the service behind the gate, not from the gate."]
    lines = [str(problem.get("detail", problem.get("title", "")))]
    local, computed = request.signed, problem.get("string_to_sign")
    match problem.get("code"):
        case "missing_credentials":
            lines.append("Give a key file with --key FILE.")
        case "invalid_credentials" if isinstance(computed, str) and local:
            lines.append(
                "The gate computed the same string to sign, so the key id is unknown (deleted?) or the secret belongs to another key."
                if computed == local
                else f"The request was changed in transit.\nSigned here:          {local!r}\nComputed by the gate: {computed!r}"
            )
        case "timestamp_out_of_window":
            lines.append("Synchronize this machine's clock (NTP), then try again.")
        case "scope_not_granted":
            lines.append("A key cannot be edited: create another one with the permission it needs.")
        case "rate_limited":
            lines.append(f"Wait {problem.get('retry_after_ms', '?')} ms.")
    return [line for line in lines if line]


def _problem(answer: Answer) -> dict[str, Any] | None:
    """The gate's problem, in its own form or inside a dialect's."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    if isinstance(found, dict) and isinstance(found.get("gerbang"), dict):
        found = found["gerbang"]
    return found if isinstance(found, dict) and isinstance(found.get("code"), str) and "request_id" in found else None
