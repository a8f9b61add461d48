"""The ``gerbang`` command line: one module per group of commands, imported only when run.

Exit status: 0 success, 1 a refusal explained in one line on standard error, 2 wrong usage.
"""

from deploy.cli import hangup  # isort: skip  # noqa: F401  # before all others

import os
import sys
from typing import Any

import click

from deploy.cli.accounts import accounts
from deploy.cli.audit import audit
from deploy.cli.call import call
from deploy.cli.checking import check
from deploy.cli.config import config
from deploy.cli.doctor import doctor
from deploy.cli.keys import keys
from deploy.cli.refusals import refusals
from deploy.cli.revoked_since import revoked_since
from deploy.cli.services import admin, gateway, migrate, reload
from deploy.cli.shadow import shadow
from deploy.cli.stream import stream
from deploy.cli.up import up
from deploy.cli.vault import vault
from gateway.errors import GerbangError

_STANDARD_ERROR = 2


class _Commands(click.Group):
    """Prints the project's own errors as one line, and lists commands in the order of the table."""

    def invoke(self, ctx: click.Context) -> Any:
        _hold_standard_descriptors()
        try:
            return super().invoke(ctx)
        except GerbangError as error:
            raise click.ClickException(str(error)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx  # the order of the table below, not of the alphabet
        return list(self.commands)


def _hold_standard_descriptors() -> None:
    """Open what was started closed (``2>&-``) on the null device: otherwise a service's next socket would become descriptor 2, and its log
    would be written to that.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="gerbang")
def main() -> None:
    r"""API keys for an exchange's customers, and the gateway that admits requests signed with them.

    \b
    Example: gerbang up
    """


def _keep_lines(command: click.Command) -> None:
    """Restore click's paragraph marks in raw docstrings, so that the lines of examples are not joined."""
    command.help = (command.help or "").replace(r"\b", "\b")
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _keep_lines(each)


_COMMANDS = (
    up, gateway, admin, check, config, doctor, reload, shadow, migrate, call, stream, keys, accounts, refusals, audit, revoked_since, vault,
)  # fmt: skip
for _command in _COMMANDS:
    main.add_command(_command)
_keep_lines(main)
