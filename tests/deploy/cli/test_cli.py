"""The command line as a whole: every command has help with an example, and wrong input ends in one clear line, never in a traceback."""

import json
import os
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deploy.cli import main
from deploy.cli.call import Answer
from deploy.client import Reply
from gateway.keys.vault import Vault
from tests.support.ports import free_port


def commands(group, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_the_contracts_commands_are_there():
    assert {" ".join(path) for path in commands(main)} >= {
        *("up", "gateway", "admin", "check", "reload", "migrate", "call"),
        *("keys list", "keys show", "keys revoke", "accounts show", "accounts freeze", "accounts thaw", "accounts reset-factors"),
        *(
            "doctor",
            "config schema",
            "config example",
            "accounts list",
            "audit list",
            "refusals list",
            "vault new-key",
            "vault reseal",
            "audit verify",
        ),
    }


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.output
    assert f"gerbang {' '.join(path)}" in result.output.split("Example:")[1].splitlines()[0]
    assert "\\b" not in result.output


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("call",), ("check",), ("up", "--port", "http"), ("up", "--port", "70000"), ("--nope",)]
)
def test_wrong_usage_is_status_2(arguments):
    assert run(*arguments).exit_code == 2


SERVICES = [("reload", "--ops"), ("accounts", "show", "demo", "--url"), ("keys", "show", "gbk_x", "--url")]


@pytest.mark.parametrize("arguments", SERVICES, ids=" ".join)
@pytest.mark.parametrize(
    "url", ["", "foo", "file:///etc/passwd", "http://", "foo:99999", "http://h:0", "u:topsecret@h:1", "http://h:1/?x", "h:1/x y"]
)
def test_what_is_no_services_url_is_wrong_usage_and_says_what_to_write(arguments, url):
    result = run(*arguments, url)
    assert result.exit_code == 2
    assert "write http://HOST:PORT, https://HOST:PORT, or just HOST:PORT" in result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:9", "[::1]:9", "http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_a_service_is_named_by_its_url_or_by_host_and_port(url, monkeypatch):
    asked = []
    monkeypatch.setattr("deploy.client.ask", lambda _, url, **__: asked.append(url) or Reply(500, "no"))
    assert run("reload", "--ops", url).exit_code == 1
    assert asked == [f"http://{'[::1]' if '::' in url else '127.0.0.1'}:9/reload"]


@pytest.mark.parametrize("wrong", ["", " ", "a b", "x" * 256, "é", "a\n"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("accounts", "show", "{}"),
        ("accounts", "freeze", "{}"),
        ("accounts", "thaw", "{}"),
        ("keys", "list", "--account", "{}"),
        ("keys", "show", "{}"),
        ("keys", "revoke", "{}", "--reason", "x"),
        ("accounts", "reset-factors", "{}", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_what_can_be_no_id_is_wrong_usage(arguments, wrong):
    result = run(*(each.format(wrong) for each in arguments))
    assert result.exit_code == 2
    assert "is not an id: write 1 to 255 visible ASCII characters" in result.stderr


@pytest.mark.parametrize("arguments", [("keys", "revoke", "gbk_x"), ("accounts", "reset-factors", "demo")], ids=" ".join)
def test_what_cannot_be_undone_without_a_reason_is_wrong_usage(arguments):
    result = run(*arguments, "--reason", " ")
    assert (result.exit_code, "give a short reason" in result.stderr) == (2, True)


def test_help_names_every_environment_variable_that_a_command_reads():
    for path in commands(main):
        command: Any = main
        for name in path:
            command = command.commands[name]
        told = run(*path, "--help").output
        assert [option.envvar for option in command.params if option.envvar and option.envvar not in told] == []


def test_help_imports_no_service():
    code = "import sys, deploy.cli; print([m for m in ('aiohttp', 'asyncpg', 'pydantic', 'cryptography') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


KEY = {"key_id": "gbk_x", "secret": "gbs_topsecret", "dialect": "mobee"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not JSON"),
        ("[]", "contains no key"),
        (json.dumps({"key_id": 5}), "contains no key"),
        (json.dumps({"key_id": "gbk_x"}), 'neither "secret" nor "private_key"'),
        (json.dumps(KEY | {"dialect": "morse"}), "dialect must be one of"),
        (json.dumps(KEY | {"secret": "topsecret\n"}), "secret is not the text that was shown at creation"),
        (json.dumps(KEY | {"key_id": "x\r\ny: z"}), "key_id is not the text that was shown at creation"),
        (json.dumps({"key_id": "gbk_x", "private_key": "-----BEGIN"}), "not an unencrypted PEM private key"),
    ],
)
def test_a_key_file_that_is_none_is_told_in_one_line_without_its_secret(tmp_path, content, told):
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    result = run("call", "GET", "http://127.0.0.1:9/x", "--key", file)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "topsecret" not in result.output


@pytest.mark.parametrize(
    "url", ["ftp://x/", "127.0.0.1:8080/x", "http://", "http://h:99999/", "http://h/a b", "http://h/é", "http://h/x#y", "http://[/"]
)
def test_a_url_that_is_none_is_wrong_usage(url):
    result = run("call", "GET", url)
    assert result.exit_code == 2
    assert "URL" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("call", "GET", "http://127.0.0.1:9/"),
        ("reload", "--ops", "http://127.0.0.1:9"),
        ("reload", "--ops", "127.0.0.1:9"),
        ("keys", "show", "gbk_x", "--url", "http://127.0.0.1:9"),
        ("accounts", "freeze", "a/../b", "--url", "http://127.0.0.1:9"),
        ("migrate", "--dsn", "nonsense"),
        ("migrate", "--dsn", "postgresql://u:topsecret@127.0.0.1:9/x"),
        ("audit", "verify", "--dsn", "postgresql://u:topsecret@127.0.0.1:9/x"),
        ("vault", "reseal", "--dsn", "postgresql://u:topsecret@127.0.0.1:9/x", "--keys", "a:b"),
        ("vault", "reseal", "--dsn", "postgresql://u@127.0.0.1:9/x", "--keys", "file:/nowhere"),
        ("check", "/nowhere.toml"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_explained_with_status_1_and_no_traceback(arguments, monkeypatch):
    monkeypatch.setenv("GERBANG_INTERNAL_TOKEN", "t" * 24)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert isinstance(result.exception, SystemExit)
    assert "topsecret" not in result.output


@pytest.mark.parametrize(
    ("command", "other", "told"),
    [("gateway", "admin", "an admin service's configuration"), ("admin", "gateway", "a gateway's configuration")],
)
def test_a_service_that_is_given_the_others_configuration_names_the_command_for_it(tmp_path, command, other, told):
    file = tmp_path / "given.toml"
    file.write_text(run("config", "example", other).output)
    result = run(command, "--config", file)
    assert (result.exit_code, result.stderr) == (1, f"Error: {file} is {told}: gerbang {other} --config {file}\n")


def test_the_service_token_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("GERBANG_INTERNAL_TOKEN", raising=False)
    result = run("keys", "show", "gbk_x", "--token-file", tmp_path / "none")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize("command", ["keys show gbk_x --json", "keys list", "accounts show demo --json"])
def test_without_a_configuration_the_variables_that_name_the_service_are_named(tmp_path, monkeypatch, command):
    monkeypatch.delenv("GERBANG_INTERNAL_TOKEN", raising=False)
    result = run(*command.split(), "--token-file", tmp_path / "absent")
    assert result.exit_code == 1
    assert {name for name in ("GERBANG_INTERNAL_URL", "GERBANG_INTERNAL_TOKEN_FILE") if name in result.stderr} == {
        "GERBANG_INTERNAL_URL", "GERBANG_INTERNAL_TOKEN_FILE",
    }  # fmt: skip


@pytest.mark.parametrize("token", ["", "two\nlines", "topsecret\x00", "topsecré"])
def test_a_service_token_that_can_be_none_is_told_without_it(tmp_path, monkeypatch, token):
    monkeypatch.delenv("GERBANG_INTERNAL_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(token)
    result = run("keys", "show", "gbk_x", "--token-file", file)
    assert (result.exit_code, f"{file} (--token-file) contains no service token" in result.stderr) == (1, True)
    assert "topsecr" not in result.output.replace(str(file), "")


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "file"])
def test_a_service_token_that_is_not_accepted_is_named_with_where_it_came_from(tmp_path, monkeypatch, variable):
    refusal = Reply(401, {"code": "unauthenticated", "detail": "Send the service token: Authorization: Bearer TOKEN."})
    monkeypatch.setattr("deploy.cli.operator.ask", lambda *_, **__: refusal)
    file = tmp_path / "token"
    file.write_text("topsecret\n")
    if variable:
        monkeypatch.setenv("GERBANG_INTERNAL_TOKEN", "topsecret")
    else:
        monkeypatch.delenv("GERBANG_INTERNAL_TOKEN", raising=False)
    for arguments in (("keys", "show", "gbk_x"), ("keys", "list", "--account", "demo"), ("accounts", "thaw", "demo")):
        result = run(*arguments, "--token-file", file)
        assert result.exit_code == 1
        where = "the variable GERBANG_INTERNAL_TOKEN" if variable else f"the file {file} (--token-file)"
        assert f"http://127.0.0.1:8093 did not accept the service token from {where}." in result.stderr
        assert "that admin service's internal.token" in result.stderr
        assert "topsecret" not in result.output


def test_a_new_vault_key_is_a_ring_that_can_be_used():
    for named in (("--id", "2026-11"), ()):
        ring = Vault.parse(run("vault", "new-key", *named).output.strip())
        assert ring.open(ring.seal(b"x", context="c"), context="c") == b"x"


@pytest.mark.parametrize("name", ["a b", "", "x" * 33, "a:b", "é"])
def test_a_name_that_no_vault_key_can_have_is_wrong_usage_and_says_what_one_is(name):
    result = run("vault", "new-key", "--id", name)
    assert result.exit_code == 2
    assert "write 1 to 32 letters, digits, '-' or '_', e.g. 2026-11" in result.stderr


def test_a_method_of_more_than_one_word_is_wrong_usage():
    result = run("call", "GET /other HTTP/1.1\r\nX: y", "http://127.0.0.1:9/x")
    assert result.exit_code == 2
    assert "METHOD must be one word" in result.stderr


def test_a_reload_tells_each_change_in_one_line(monkeypatch):
    changes = [
        {"kind": "changed", "path": "limits.per_key", "before": "1200/minute", "after": "600/minute"},
        {"kind": "added", "path": "routes[GET /v1/x]", "before": None, "after": None},
        {"kind": "changed", "path": "routes[GET /v1/y].maintenance", "before": "", "after": "closed"},
        {"kind": "changed", "path": "routes[GET /v1/y].weight", "before": 1, "after": 2},
        {"kind": "changed", "path": "client_ip.proxy_protocol", "before": False, "after": True},
        {"kind": "changed", "path": "upstreams.spot.servers", "before": ["http://é:1"], "after": []},
        {"kind": "changed", "path": "gateway.docs_url", "before": None, "after": "https://x"},
    ]
    answer = Reply(200, {"outcome": "applied", "version": "abc", "changes": changes})
    monkeypatch.setattr("deploy.client.ask", lambda *_, **__: answer)
    told = run("reload").output
    assert told.splitlines() == [
        "applied: version abc",
        '  limits.per_key: "1200/minute" → "600/minute"',
        "  routes[GET /v1/x]: added",
        '  routes[GET /v1/y].maintenance: "" → "closed"',
        "  routes[GET /v1/y].weight: 1 → 2",
        "  client_ip.proxy_protocol: false → true",
        '  upstreams.spot.servers: ["http://é:1"] → []',
        '  gateway.docs_url: not set → "https://x"',
    ]


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (("reload",), "GERBANG_OPS_URL"), (("shadow", "report"), "GERBANG_OPS_URL"), (("keys", "list"), "GERBANG_INTERNAL_URL"),
        (("accounts", "freeze", "siti"), "GERBANG_INTERNAL_URL"),
    ],
)  # fmt: skip
def test_where_nobody_answers_it_is_said_how_the_service_is_named(command, variable, monkeypatch):
    monkeypatch.setenv("GERBANG_INTERNAL_TOKEN", "t" * 24)
    port = free_port()
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    result = run(*command)
    assert (result.exit_code, f"127.0.0.1:{port}" in result.stderr, variable in result.stderr) == (1, True, True), result.stderr


@pytest.mark.parametrize("command", [("reload",), ("reload", "--dry-run"), ("shadow", "report")], ids=" ".join)
def test_another_servers_answer_is_not_taken_for_a_gateways(command, monkeypatch):
    monkeypatch.setattr("deploy.client.ask", lambda *_, **__: Reply(200, {"status": "ok"}))
    result = run(*command)
    assert (result.exit_code, "is not a gateway's ops port" in result.stderr) == (1, True)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_socket_takes_the_place_of_a_closed_standard_descriptor(tmp_path, closed):
    """A log is written to descriptor 2, whatever that is."""
    told = tmp_path / "told"
    code = (
        "import os, pathlib, socket, sys; from deploy.cli import main; main(['vault', 'new-key'], standalone_mode=False);"
        "opened = socket.socket(); assert sys.stdin is not None;"
        f"pathlib.Path({str(told)!r}).write_text(f'{{opened.fileno() > 2}} {{os.stat(2).st_mode}}')"
    )
    subprocess.run(["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], check=True, timeout=60)
    assert told.read_text().startswith("True ")


def test_data_is_sent_as_the_bytes_that_were_given(monkeypatch):
    sent = []
    monkeypatch.setattr(sys.modules["deploy.cli.call"], "_send", lambda _, request: sent.append(request.body) or Answer(200, "OK", b""))
    assert run("call", "POST", "http://127.0.0.1:9/x", "--data", os.fsdecode(b"a=\xff")).exit_code == 0
    assert sent == [b"a=\xff"]


def test_a_message_that_is_not_utf_8_is_wrong_usage(tmp_path):
    key = tmp_path / "key.json"
    key.write_text('{"key_id": "gbk_1", "secret": "gbs_1"}')
    result = run("stream", "ws://127.0.0.1:9/", "--key", key, "--send", '{"a":"\udcff"}')
    assert (result.exit_code, "--send takes JSON in UTF-8" in result.stderr) == (2, True)


@pytest.mark.parametrize(("command", "ignored"), [("gateway", True), ("admin", True), ("up", False), ("keys", False)])
def test_a_reload_just_after_its_start_does_not_end_a_service(command, ignored):
    code = "import signal; from deploy.cli import main; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    told = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == f"{ignored}\n"
