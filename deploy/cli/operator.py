"""The operator's emergency tools, over the internal API: keys and accounts."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from deploy.cli.arguments import identifier, service_url, words
from deploy.client import ask, told

_DEFAULT_TOKEN = Path(".gerbang/secrets/internal-token")
_TOKEN = re.compile(r"[ -~]+")


def _internal(command: Callable[..., None]) -> Callable[..., None]:
    """The two options of whatever talks to the internal API."""
    url = click.option(
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
    return url(token(command))


def _token(path: Path) -> tuple[str, str]:
    """The service token, and where it stands.

    :raises click.ClickException: it cannot be read, or cannot be one; never with the token in it
    """
    token, where = os.environ.get("GERBANG_INTERNAL_TOKEN", ""), "the variable GERBANG_INTERNAL_TOKEN"
    if not token:
        where = f"the file {path} (--token-file)"
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise click.ClickException(f"the service token {path} cannot be read: {error.strerror} (set --token-file)") from None
        except UnicodeDecodeError:
            raise click.ClickException(f"the service token {path} is not text") from None
    if not _TOKEN.fullmatch(token):
        raise click.ClickException(f"{where} holds no service token: it is one line of ASCII characters")
    return token, where


def _call(method: str, url: str, token_file: Path, path: str, body: object = None) -> Any:
    token, where = _token(token_file)
    reply = ask(method, f"{url}/internal/v1/{path}", body=body, token=token)
    if reply.status == 401:
        raise click.ClickException(
            f"{url} did not accept the service token from {where}.\n"
            "It must be what the setting internal.token of that admin service says; a changed one counts after a restart."
        )
    if reply.status >= 400:
        raise click.ClickException(told(reply))
    return reply.content


def _show(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


@click.group()
def keys() -> None:
    """Look at keys and revoke them, whoever owns them."""


@keys.command("list")
@click.option("--account", callback=identifier, required=True, help="The account's id (the identity provider's sub).")
@_internal
def list_keys(account: str, url: str, token_file: Path) -> None:
    r"""List an account's keys, one a line: id, status, scopes, addresses, label.

    \b
    Example: gerbang keys list --account demo
    """
    answer = _call("GET", url, token_file, f"accounts/{quote(account, safe='')}")
    for key in answer.get("keys", []):
        addresses = ",".join(key.get("ip_allowlist") or []) or "unrestricted"
        click.echo(f"{key['id']}  {key['status']:8} {','.join(key['scopes']):10} {addresses:20} {key['label']}")


@keys.command()
@click.argument("key_id", callback=identifier)
@_internal
def show(key_id: str, url: str, token_file: Path) -> None:
    r"""Show one key as JSON; never its secret.

    \b
    Example: gerbang keys show gbk_0123456789abcdefghijklMNOPQR
    """
    _show(_call("GET", url, token_file, f"keys/{quote(key_id, safe='')}"))


@keys.command()
@click.argument("key_id", callback=identifier)
@click.option("--reason", callback=words, required=True, help="Kept in the audit trail and shown to the owner.")
@_internal
def revoke(key_id: str, reason: str, url: str, token_file: Path) -> None:
    r"""Revoke a key at once, everywhere. It cannot be undone.

    \b
    Example: gerbang keys revoke gbk_0123456789abcdefghijklMNOPQR --reason "found in a public repository"
    """
    _call("POST", url, token_file, f"keys/{quote(key_id, safe='')}/revoke", {"reason": reason})
    click.echo(f"{key_id} is revoked")


@click.group()
def accounts() -> None:
    """Look at accounts, freeze and thaw them, reset their second factors."""


@accounts.command("show")
@click.argument("account", callback=identifier)
@_internal
def show_account(account: str, url: str, token_file: Path) -> None:
    r"""Show an account as JSON.

    \b
    Example: gerbang accounts show demo
    """
    _show(_call("GET", url, token_file, f"accounts/{quote(account, safe='')}"))


@accounts.command()
@click.argument("account", callback=identifier)
@_internal
def freeze(account: str, url: str, token_file: Path) -> None:
    r"""Stop all keys of an account at once, until it is thawed.

    \b
    Example: gerbang accounts freeze demo
    """
    _call("POST", url, token_file, f"accounts/{quote(account, safe='')}/freeze")
    click.echo(f"{account} is frozen: none of its keys passes")


@accounts.command()
@click.argument("account", callback=identifier)
@_internal
def thaw(account: str, url: str, token_file: Path) -> None:
    r"""Let the keys of a frozen account pass again.

    \b
    Example: gerbang accounts thaw demo
    """
    _call("POST", url, token_file, f"accounts/{quote(account, safe='')}/thaw")
    click.echo(f"{account} is thawed: its keys pass again")


@accounts.command("reset-factors")
@click.argument("account", callback=identifier)
@click.option("--reason", required=True, callback=words, help="Kept in the audit trail and shown to the account's holder.")
@_internal
def reset_factors(account: str, reason: str, url: str, token_file: Path) -> None:
    r"""Remove every second factor and recovery code of an account whose holder has lost them all. It cannot be undone.

    Every login ends and the account is frozen: its holder logs in anew, enrols a factor and looks through the keys; then thaw it.

    \b
    Example: gerbang accounts reset-factors demo --reason "lost phone, identity checked by video, case 4711"
    """
    _call("POST", url, token_file, f"accounts/{quote(account, safe='')}/reset-factors", {"reason": reason})
    click.echo(f"{account} has no second factor, is logged out everywhere, and frozen until gerbang accounts thaw")
