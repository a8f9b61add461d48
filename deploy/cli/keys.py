"""``gerbang keys``: search, show and revoke keys."""

import shlex
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote

import click

from deploy.cli.arguments import identifier, identifiers, words
from deploy.cli.operator import KEY_FILTERS, Internal, Tell, always_json, filters, given, internal, listing, show, show_found, telling
from deploy.plural import counted

_SHOWN = 20


@click.group()
def keys() -> None:
    """Search, show and revoke the keys of any account."""


@keys.command("list")
@filters(*KEY_FILTERS)
@listing
def list_keys(office: Internal, limit: int, as_json: bool, **wanted: Any) -> None:
    r"""List the keys that match, oldest first: id, status, scopes, addresses, label. Without a filter, every key.

    --ip finds keys whose allow list has that address, or one in that network.

    \b
    Example: gerbang keys list --account demo
             gerbang keys list --unrestricted --scope trade --unused-since 90d --json
    """
    show_found(office.search("keys", given(wanted), limit), "keys", _line, as_json=as_json)


@keys.command("show")
@click.argument("key_id", callback=identifier)
@always_json
@internal
def show_key(office: Internal, key_id: str) -> None:
    r"""Show one key as JSON; never its secret.

    \b
    Example: gerbang keys show gbk_0123456789abcdefghijklMNOPQR
    """
    show(office.call("GET", f"keys/{quote(key_id, safe='')}"))


@keys.command()
@click.argument("key_ids", nargs=-1, metavar="[ID]...", callback=identifiers)
@click.option(
    "--where", is_flag=False, flag_value="", multiple=True, help='Every key that matches the filters: options, or "NAME=VALUE …".'
)
@filters(*KEY_FILTERS)
@click.option("--reason", callback=words, help="Recorded in the audit log and shown to the owner.")
@click.option("--dry-run", is_flag=True, help="Only show which, and how many.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@internal
def revoke(
    *, office: Internal, key_ids: tuple[str, ...], where: tuple[str, ...], reason: str | None, dry_run: bool, yes: bool, as_json: bool,
    **wanted: Any,
) -> None:  # fmt: skip
    r"""Revoke keys immediately, everywhere: the given ones or, with --where, all that match the filters of keys list. Cannot be undone.

    With --where it shows the exact count and asks for confirmation; if the count has changed by then, nothing is revoked.

    \b
    Example: gerbang keys revoke gbk_0123456789abcdefghijklMNOPQR --reason "found in a public repository"
             gerbang keys revoke --where --account siti --unrestricted --reason "case 4711"
             gerbang keys revoke --where "scope=trade unused_since=90d until=90d" --reason "idle" --dry-run
    """
    chosen = given(wanted)
    for text in where:
        chosen |= _filters_in(text)
    if bool(key_ids) == bool(where):
        raise click.UsageError("give key ids or --where, not both")
    if where and not chosen:
        raise click.UsageError("--where needs at least one filter, e.g. --where --account siti")
    if chosen and not where:
        raise click.UsageError("filters require --where")
    if reason is None and not dry_run:
        raise click.UsageError("Missing option '--reason': give a short reason")
    with nullcontext(click.echo) if dry_run else telling() as tell:
        if where:
            _revoke_matching(office, chosen, reason or "", tell, dry_run=dry_run, yes=yes, as_json=as_json)
        else:
            _revoke_named(office, key_ids, reason or "", tell, dry_run=dry_run, as_json=as_json)


def _revoke_matching(
    office: Internal, chosen: dict[str, object], reason: str, tell: Tell, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    where = {name: value == "true" if name == "unrestricted" else value for name, value in chosen.items()}
    found = office.call("POST", "keys/revoke", {"where": where, "dry_run": True})
    count = found["count"]
    if not count:
        office.check_known(chosen)
    if as_json and dry_run:
        show(found, tell)
        return
    for key_id in found["keys"][:_SHOWN]:
        tell(key_id, err=as_json)
    if count > _SHOWN:
        tell(f"… and {count - _SHOWN} more", err=True)
    tell(f"{counted(count, 'key')} {'matches and is' if count == 1 else 'match and are'} not revoked yet", err=True)
    if dry_run or not count:
        return
    if not yes:
        click.confirm(f"Revoke {'this key' if count == 1 else f'these {count} keys'}? It cannot be undone.", abort=True, err=True)
    done = office.call("POST", "keys/revoke", {"where": where, "expected_count": count, "reason": reason})
    if as_json:
        show(done, tell)
    else:
        tell(f"{counted(done['count'], 'key')} {'is' if done['count'] == 1 else 'are'} revoked")


def _revoke_named(office: Internal, key_ids: tuple[str, ...], reason: str, tell: Tell, *, dry_run: bool, as_json: bool) -> None:
    answers, failures = [], []
    for key_id in key_ids:
        path = f"keys/{quote(key_id, safe='')}"
        try:
            key = office.call("GET", path) if dry_run else office.call("POST", f"{path}/revoke", {"reason": reason})
        except click.ClickException as error:
            if len(key_ids) == 1:
                raise
            failures.append(f"{key_id}: {error.message}")
            continue
        answers.append(key)
        if not as_json:
            tell(_line(key) if dry_run else _revoked_line(key))
    if as_json:
        show({"keys": answers, "count": len(answers)}, tell)
    if failures:
        raise click.ClickException("\n".join(failures))


def _revoked_line(key: dict[str, Any]) -> str:
    if key.get("changed", True):
        return f"{key['id']} is revoked"
    before = f"{key['id']} was already revoked at {key['revoked_at']}: {key['revoked_reason']}"
    return f"{before}\nYour reason was added to the audit log; the owner sees the first one."


def _line(key: dict[str, Any]) -> str:
    addresses = ",".join(key.get("ip_allowlist") or []) or "unrestricted"
    return f"{key['id']}  {key['status']:8} {','.join(key['scopes']):10} {addresses:20} {key['label']}"


def _filters_in(text: str) -> dict[str, object]:
    """Filters in one argument, ``account=siti unrestricted``, parsed with the options of ``keys list``.

    :raises click.UsageError: not filters of ``keys list``
    """
    from deploy.cli import main

    try:
        parts = shlex.split(text)
    except ValueError:
        raise click.UsageError(f"--where {text!r}: a quotation mark is missing") from None
    options = []
    for part in parts:
        name, _, value = part.partition("=")
        if name.replace("-", "_") not in KEY_FILTERS:
            raise click.UsageError(f"--where {text!r}: {name!r} is not a filter; the filters are {', '.join(KEY_FILTERS)}")
        if name == "unrestricted":
            if value.lower() not in ("", "true", "yes", "false", "no"):
                raise click.UsageError(f"--where {text!r}: unrestricted is true or false")
            options.append("--whitelisted" if value.lower() in ("false", "no") else "--unrestricted")
        else:
            options += [f"--{name.replace('_', '-')}", value]
    context = click.Context(list_keys, parent=click.Context(main), info_name="--where")
    try:
        list_keys.parse_args(context, options)
    except click.UsageError as error:
        raise click.UsageError(f"--where {text!r}: {error.format_message()}") from None
    return given({name: context.params[name] for name in KEY_FILTERS})
