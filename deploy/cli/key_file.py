"""Key files for commands that sign: the option, and the parser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deploy.signing import SigningKey


def key_option(*, help: str, required: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:  # noqa: A002  # as in click
    """``--key FILE``, or the environment variable GERBANG_KEY."""
    return click.option(
        "--key", "key_file", type=click.Path(path_type=Path), envvar="GERBANG_KEY", show_envvar=True, required=required, help=help
    )


def read_key(path: Path) -> "tuple[SigningKey, str]":
    """The key of a key file, and its dialect (default ``mobee``).

    :raises click.ClickException: the error in the file; the message never contains the secret
    """
    from deploy.signing import DIALECTS, SigningKey

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise click.ClickException(f"{path} is not JSON: line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is not JSON: it is not UTF-8 text") from None
    if not isinstance(found, dict) or not isinstance(found.get("key_id"), str):
        raise click.ClickException(f'{path} contains no key: it needs {{"key_id": …, "secret": …}}')
    dialect = found.get("dialect", "mobee")
    if dialect not in DIALECTS:
        raise click.ClickException(f"{path}: dialect must be one of {', '.join(DIALECTS)}")
    for name in ("key_id", "secret", "private_key"):
        value = found.get(name)
        if value is not None and (not isinstance(value, str) or not value.isascii() or (name != "private_key" and not value.isprintable())):
            raise click.ClickException(f"{path}: {name} is not the text that was shown at creation")
    if found.get("secret"):
        return SigningKey(found["key_id"], found["secret"]), dialect
    if found.get("private_key"):
        return SigningKey(found["key_id"], _private_key(found["private_key"], path)), dialect
    raise click.ClickException(f'{path} has neither "secret" nor "private_key"')


def _private_key(pem: str, path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise click.ClickException(f"{path}: private_key is not an unencrypted PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise click.ClickException(f"{path}: private_key is neither Ed25519 nor RSA")
    return key
