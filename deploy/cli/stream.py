"""``gerbang stream``: open a WebSocket session, log in with a key file, print each message."""

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.key_file import key_option, read_key
from gateway.runtime.clock import now_ms

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse

_TIMEOUT_S = 30
_REASON_S = 5
_MAX_MESSAGE = 1 << 24
_EXPECTED = frozenset({1000, 1001})
"""Close codes of a normal end (RFC 6455 §7.4.1)."""


@click.command()
@click.argument("url")
@key_option(help="Key file to log in with.", required=True)
@click.option("--dialect", type=click.Choice(["mobee", "binance"]), help="The session's dialect; default: the key file's.")
@click.option("--send", "messages", multiple=True, metavar="JSON", help="A message to send once logged in; may be given several times.")
def stream(url: str, key_file: Path, dialect: str | None, messages: tuple[str, ...]) -> None:
    r"""Open a WebSocket session through the gateway, log in with a key, send messages, and print each received message, until Ctrl-C.

    \b
    Example: gerbang stream ws://127.0.0.1:8080/ws --key .gerbang/demo-key.json --send '{"method":"subscribe","events":["BL","PO.ALL"]}'
             gerbang stream ws://127.0.0.1:8080/ws-api/v3 --key .gerbang/demo-key.json --dialect binance \
               --send '{"id":1,"method":"account.status"}'
    """
    from deploy.signing import SESSIONS, log_in

    for message in messages:
        _check(message)
    key, own = read_key(key_file)
    spoken = dialect or own
    if spoken not in SESSIONS:
        raise click.UsageError(f"the key file's dialect, {spoken}, has no sessions: give --dialect mobee or --dialect binance")
    with suppress(KeyboardInterrupt):
        asyncio.run(_talk(url, [log_in(spoken, key, now_ms=now_ms()), *messages]))


def _check(message: str) -> None:
    try:
        parsed = json.loads(message.encode())
    except UnicodeError:
        raise click.UsageError("--send takes JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--send takes JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise click.UsageError('--send takes a JSON object, e.g. {"method":"subscribe","events":["BL"]}')


async def _talk(url: str, messages: list[str]) -> None:
    """Log in, send these messages, and print received ones until the connection is closed.

    :raises ClickException: the handshake failed, or the session ended with an error
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.ws_connect(url, max_msg_size=_MAX_MESSAGE, autoclose=True, compress=0) as socket:
                    for message in messages:
                        await socket.send_str(message)
                    await _print_all(socket)
            except aiohttp.WSServerHandshakeError as error:
                reason = await reason_of(session, url, error.status) or error.message
                raise click.ClickException(f"the handshake was refused with {error.status}: {reason}") from None
    except (aiohttp.InvalidURL, ValueError):
        raise click.UsageError("the URL must be ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH") from None
    except aiohttp.ClientError as error:
        raise click.ClickException(f"{url} cannot be reached: {cause_of(error)}") from None


def cause_of(error: Exception) -> str:
    """The operating system's or resolver's message, without aiohttp's wrapping."""
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(cause, "strerror", None) or str(error)


async def reason_of(session: "ClientSession", url: str, status: int) -> str:
    """Why the handshake was refused, from a plain request, because the client hides a refused handshake's content; ``""``: unknown."""
    import aiohttp

    try:
        async with asyncio.timeout(_REASON_S), session.get("http" + url.removeprefix("ws").removeprefix("http")) as answer:
            text = await answer.text() if answer.status == status and answer.content_type.endswith("json") else ""
    except (TimeoutError, ValueError, aiohttp.ClientError):
        return ""
    problem = _problem(text) or _problem(f'{{"gerbang":{text}}}')
    return str(problem["detail"]) if problem is not None else ""


async def _print_all(socket: "ClientWebSocketResponse") -> None:
    """Print messages until the connection is closed or the log-in is refused.

    :raises ClickException: it was closed with an error code
    """
    refused = False
    async for message in socket:
        if isinstance(message.data, str):
            click.echo(message.data)
            problem = _problem(message.data)
            if problem is not None:
                click.echo(problem["detail"], err=True)
                refused = refused or _is_log_in(message.data)
                if refused:
                    break
    code = socket.close_code
    if refused:
        raise SystemExit(1)
    if code not in _EXPECTED and code is not None:
        raise click.ClickException(f"closed by the gate or the service with {code}")


def _problem(text: str) -> dict[str, Any] | None:
    """The gate's problem in a message, if it is a refusal."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    problem = found.get("gerbang") if isinstance(found, dict) else None
    return problem if isinstance(problem, dict) and isinstance(problem.get("detail"), str) else None


def _is_log_in(text: str) -> bool:
    """Whether the log-in itself was refused, after which nothing else can succeed."""
    from deploy.signing import LOG_IN_ID

    found = json.loads(text)
    return bool(found.get("id") == LOG_IN_ID or found.get("method") == "login")
