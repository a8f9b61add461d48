"""Operators' commands: what is asked of the internal API, what is said of its answer, and what is wrong usage."""

import errno
import json
import os

import click
import pytest
from click.testing import CliRunner

from admin.errors import NoEndpoint, NotFound
from deploy.cli import main
from deploy.client import Reply

KEY = {
    "id": "gbk_1", "status": "active", "scopes": ["read"], "ip_allowlist": ["8.8.8.8"], "label": "Bot", "account_id": "siti",
    "changed": True, "revoked_at": None, "revoked_reason": None,
}  # fmt: skip
ABSENT = {"code": NotFound.code, "title": NotFound.title, "detail": "x"}


class Office:
    """Stands for the internal API: answers what it is given, remembers what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str, object]] = []
        self.answers: list[Reply] = []
        monkeypatch.setenv("GERBANG_INTERNAL_TOKEN", "t" * 24)
        monkeypatch.setattr("deploy.cli.operator.ask", self.ask)

    def ask(self, method, url, *, body=None, **_):
        self.asked.append((method, url.partition("/internal/v1/")[2], body))
        return self.answers.pop(0)

    def run(self, *arguments, stdin=None, **answers):
        self.asked.clear()
        self.answers = [answer if isinstance(answer, Reply) else Reply(200, answer) for answer in answers.get("answers", [])]
        return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


@pytest.fixture
def office(monkeypatch):
    return Office(monkeypatch)


def page(what, *found, count=None, cursor=None):
    return {what: list(found), "count": len(found) if count is None else count, "next_cursor": cursor}


def test_a_list_goes_through_every_page_and_tells_the_whole_count_beside_the_lines(office):
    pages = [page("keys", KEY, count=2, cursor="next"), page("keys", KEY | {"id": "gbk_2"}, count=2)]
    result = office.run("keys", "list", "--account", "siti", "--unrestricted", "--ip", "8.8.0.0/16", answers=pages)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["gbk_1", "gbk_2"]
    assert result.stderr == "2 found\n"
    assert office.asked[1][1] == "keys?account=siti&unrestricted=true&ip=8.8.0.0%2F16&limit=999&cursor=next"
    result = office.run("keys", "list", "--limit", "1", "--json", answers=[page("keys", KEY, count=7, cursor="next")])
    assert (json.loads(result.stdout)["count"], len(office.asked)) == (7, 1)
    assert "7 found, 1 shown" in office.run("keys", "list", "--limit", "1", answers=[page("keys", KEY, count=7, cursor="next")]).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "revoke", "--reason", "x"),
        ("keys", "revoke", "gbk_1", "--where", "--account", "siti", "--reason", "x"),
        ("keys", "revoke", "gbk_1", "--account", "siti", "--reason", "x"),
        ("keys", "revoke", "--where", "--reason", "x"),
        ("keys", "revoke", "--where", "colour=red", "--reason", "x"),
        ("keys", "revoke", "--where", "scope=write", "--reason", "x"),
        ("keys", "revoke", "--where", 'label="x', "--reason", "x"),
        ("keys", "revoke", "--where", "account=siti unrestricted=0", "--reason", "x"),
        ("keys", "revoke", "--where", "account=siti --limit=1", "--reason", "x"),
        ("keys", "revoke", "--where", "--account", "siti"),
        ("keys", "revoke", "gbk_1"),
        ("keys", "list", "--since", "yesterday"),
        ("keys", "list", "--ip", "home"),
        ("keys", "list", "--scope", "write"),
        ("audit", "list", "--limit", "0"),
        ("audit", "list", "--actor", "\udcff"),
        ("keys", "list", "--label", "\udcff"),
        ("keys", "list", "--until", "9999-12-31T23:59:59-12:00"),
        ("keys", "revoke", "gbk_1", "--reason", "\udcff"),
        ("keys", "revoke", "--where", "label=\udcff", "--reason", "x"),
    ],
    ids=lambda each: ascii(" ".join(each)),
)
def test_wrong_usage_asks_nothing(office, arguments):
    assert (office.run(*arguments).exit_code, office.asked) == (2, [])


WHERE = {"account": "siti", "label": "my bot", "unrestricted": True}


@pytest.mark.parametrize(
    "where",
    [
        ("--where", "--account", "siti", "--label", "my bot", "--unrestricted"),
        ("--where", "account=siti label='my bot' unrestricted"),
        ("--where", "account=siti", "--where", "label='my bot'", "--where", "unrestricted=true"),
    ],
    ids=str,
)
def test_what_matches_is_counted_shown_asked_about_and_revoked_as_it_was_counted(office, where):
    found, done = {"count": 2, "keys": ["gbk_1", "gbk_2"], "revoked": False}, {"count": 2, "keys": ["gbk_1", "gbk_2"], "revoked": True}
    result = office.run("keys", "revoke", *where, "--reason", "idle", stdin="y\n", answers=[found, done])
    assert (result.exit_code, "2 keys match" in result.stderr, "2 keys are revoked" in result.stdout) == (0, True, True), result.output
    assert [body for _, _, body in office.asked] == [
        {"where": WHERE, "dry_run": True},
        {"where": WHERE, "expected_count": 2, "reason": "idle"},
    ]


def test_nothing_is_revoked_by_no_by_silence_by_a_dry_run_or_when_nothing_matches(office):
    found = {"count": 2, "keys": ["gbk_1", "gbk_2"], "revoked": False}
    command = ("keys", "revoke", "--where", "account=siti", "--reason", "idle")
    for more, stdin, answer, status in (
        ((), "n\n", found, 1),
        ((), "", found, 1),
        (("--dry-run",), None, found, 0),
        (("--dry-run", "--json"), None, found, 0),
        (("--yes",), None, {"count": 0, "keys": [], "revoked": False}, 0),
    ):
        assert office.run(*command, *more, stdin=stdin, answers=[answer, {"id": "siti"}]).exit_code == status
        assert [body["dry_run"] for method, _, body in office.asked if method == "POST"] == [True]
    assert office.run(*command, "--yes", answers=[found, found | {"revoked": True}]).exit_code == 0


def test_several_named_keys_are_each_told_and_one_that_fails_stops_no_other(office):
    again = KEY | {"id": "gbk_2", "changed": False, "revoked_at": "2026-11-24T00:00:00.000Z", "revoked_reason": "leaked"}
    missing = Reply(404, ABSENT | {"detail": "There is no such key."})
    office.answers = [Reply(200, KEY), missing, Reply(200, again)]
    result = CliRunner().invoke(main, ["keys", "revoke", "gbk_1", "gbk_x", "gbk_2", "--reason", "case 4711"])
    assert result.exit_code == 1
    assert "gbk_1 is revoked" in result.stdout
    assert "gbk_2 was already revoked at 2026-11-24T00:00:00.000Z: leaked" in result.stdout
    assert "gbk_x: There is no such key." in result.stderr


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ({"kyc": "verified", "keys": [KEY]}, "is thawed: its key is accepted again"),
        ({"kyc": "verified", "keys": [KEY, KEY]}, "is thawed: its keys are accepted again"),
        ({"kyc": "verified", "keys": []}, "is thawed: it has no keys"),
        (
            {"kyc": "verified", "keys": [KEY, KEY | {"status": "revoked"}]},
            "1 of its 2 keys is accepted, the others are revoked or expired",
        ),
        ({"kyc": "revoked", "keys": [KEY]}, "its keys are still refused, because its identity verification was revoked"),
        ({"kyc": "unverified", "keys": []}, "its keys are still refused, because its identity verification is missing"),
        ({"kyc": "verified", "keys": [KEY], "changed": False}, "siti was not frozen: its key is accepted again"),
    ],
)
def test_a_thaw_says_which_keys_pass(office, account, told):
    result = office.run("accounts", "thaw", "siti", "--reason", "closed", answers=[{"id": "siti", "changed": True, **account}])
    assert told in result.stdout
    assert office.asked == [("POST", "accounts/siti/thaw", {"reason": "closed"})]


def test_a_freeze_that_was_so_already_says_so(office):
    assert "siti was already frozen" in office.run("accounts", "freeze", "siti", answers=[{"id": "siti", "changed": False}]).stdout


def test_the_other_lists_print_a_line_each(office):
    event = {
        "id": 7,
        "at": "T",
        "event": "key_revoked",
        "actor": "alice",
        "account_id": "siti",
        "key_id": None,
        "client_ip": None,
        "detail": {"reason": "x"},
    }  # a table
    refused = {"at": "T", "code": "ip_not_allowed", "account_id": "siti", "key_id": "gbk_1", "client_ip": "8.8.8.8", "route": None}
    account = {"id": "siti", "kyc": "verified", "frozen": True, "keys": 2, "email": None}
    for command, what, found, words in (
        ("audit", "events", event, ["key_revoked", "alice", "siti", '{"reason": "x"}']),
        (
            "refusals",
            "refusals",
            refused,
            ["ip_not_allowed", "siti", "gbk_1", "8.8.8.8  -"],
        ),  # of a service that does not tell the route yet
        ("refusals", "refusals", refused | {"route": "GET /v1/wallets"}, ["8.8.8.8  GET /v1/wallets"]),
        ("accounts", "accounts", account, ["siti", "verified", "frozen", "2 keys"]),
    ):
        result = office.run(command, "list", answers=[page(what, found)])
        assert not [word for word in words if word not in result.stdout], result.output
        assert office.asked[0][1] == f"{command}?limit=1000"


OTHERS = [
    Reply(404, {"detail": "There is no such endpoint.", "code": "not_found", "title": NoEndpoint.title}),  # the admin service's public port
    Reply(404, {"detail": "no route", "code": "no_route"}),  # a gateway
    Reply(404, {"detail": "GET /internal/v1/keys", "code": "not_found"}),  # a gateway's ops port
    Reply(404, "GET /internal/v1/keys"),
    Reply(200, "<html>"),
    Reply(200, {"status": "alive"}),
]


@pytest.mark.parametrize("answer", OTHERS, ids=str)
@pytest.mark.parametrize("apply", [False, True])
def test_what_another_server_answers_is_not_taken_for_the_internal_apis(office, tmp_path, answer, apply):
    """A restored database's keys are not reported as stopped when nothing was asked of the admin service."""
    common = {"actor": "operator", "account_id": "siti", "key_id": None, "detail": {}, "hash": "0" * 64}
    events = [
        common | {"id": 1, "at": "2026-11-24T00:00:00.000Z", "event": "login"},
        common | {"id": 2, "at": "2026-11-25T00:00:00.000Z", "event": "key_revoked", "key_id": "gbk_1", "detail": {"reason": "leaked"}},
        common | {"id": 3, "at": "2026-11-25T00:00:00.000Z", "event": "account_frozen", "detail": {"reason": "case"}},
    ]
    streamed = tmp_path / "audit.jsonl"
    streamed.write_text("".join(json.dumps(event) + "\n" for event in events))
    command = ("revoked-since", "2026-11-24T12:00:00Z", "--audit", str(streamed), "--apply") if apply else ("keys", "show", "gbk_1")
    result = office.run(*command, answers=[answer] * 4)
    assert result.exit_code == 1
    assert "is not the internal port of an admin service" in result.stderr
    assert "stopped again\n" not in result.stderr.replace("not stopped again:\n", "")


@pytest.mark.parametrize(
    ("command", "found", "option", "what"),
    [
        ("refusals", "refusals", "--account", "account"), ("refusals", "refusals", "--key", "key"),
        ("audit", "events", "--account", "account"), ("audit", "events", "--key", "key"), ("keys", "keys", "--account", "account"),
    ],
)  # fmt: skip
def test_what_is_of_nobody_is_not_told_as_none(office, command, found, option, what):
    result = office.run(command, "list", option, "nobody", answers=[page(found), Reply(404, ABSENT)])
    assert (result.exit_code, result.stderr) == (1, f"Error: there is no {what} nobody\n")
    assert office.asked[1][:2] == ("GET", f"{what}s/nobody")
    result = office.run(command, "list", option, "siti", answers=[page(found), {"id": "siti"}])
    assert (result.exit_code, result.stderr) == (0, "0 found\n")


@pytest.mark.parametrize("text", ["unrestricted=false", "unrestricted=False", "unrestricted=no"])
def test_keys_with_an_allow_list_are_not_taken_for_unrestricted_ones(office, text):
    office.run("keys", "revoke", "--where", text, "--dry-run", answers=[{"count": 0, "keys": []}])
    assert [body for _, _, body in office.asked] == [{"where": {"unrestricted": False}, "dry_run": True}]


def test_an_account_that_is_mistyped_is_not_taken_for_one_without_keys_to_revoke(office):
    nothing, command = {"count": 0, "keys": []}, ("keys", "revoke", "--where", "account=sitti", "--reason", "leaked", "--yes")
    result = office.run(*command, answers=[nothing, Reply(404, ABSENT)])
    assert (result.exit_code, result.stderr) == (1, "Error: there is no account sitti\n")
    result = office.run(*command, answers=[nothing, {"id": "sitti"}])
    assert (result.exit_code, result.stderr) == (0, "0 keys match and are not revoked yet\n")


def test_a_filter_of_where_that_is_none_is_told_in_one_line(office):
    result = office.run("keys", "revoke", "--where", "scop=trade", "--reason", "x")
    assert (result.exit_code, office.asked) == (2, [])
    assert "Error: --where 'scop=trade': 'scop' is not a filter; the filters are account, " in result.stderr
    result = office.run("keys", "revoke", "--where", "scope=sell", "--reason", "x")
    assert (result.exit_code, "--where 'scope=sell': Invalid value for '--scope'" in result.stderr) == (2, True)


@pytest.fixture(params=[errno.EPIPE, errno.ENOSPC], ids=os.strerror)
def unprinted(request, monkeypatch):
    """Standard output cannot be written, as after ``| head`` or on a full disk. Returns why."""
    echo, error = click.echo, OSError(request.param, os.strerror(request.param))

    def broken(text=None, *, err=False, **more):
        if not err:
            raise error
        echo(text, err=True, **more)

    monkeypatch.setattr("click.echo", broken)
    return error.strerror


ONE = {"count": 1, "keys": ["gbk_1"]}


@pytest.mark.parametrize(
    ("command", "answered"),
    [
        (("keys", "revoke", "gbk_1", "gbk_2", "--reason", "x"), [("keys/gbk_1/revoke", KEY), ("keys/gbk_2/revoke", KEY)]),
        (
            ("keys", "revoke", "--where", "--account", "siti", "--reason", "x", "--yes"),
            [("keys/revoke", ONE), ("keys/revoke", ONE)],
        ),
        (("accounts", "freeze", "siti", "--reason", "x"), [("accounts/siti/freeze", {"id": "siti", "changed": True})]),
        (
            ("revoked-since", "2026-11-24T12:00:00Z", "--apply", "--audit", "audit.jsonl"),
            [("accounts/siti/freeze", {"id": "siti"}), ("keys/gbk_1/revoke", KEY)],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_to_be_stopped_is_stopped_though_nobody_reads_what_is_told(office, unprinted, tmp_path, command, answered):
    common = {"actor": "operator", "account_id": "siti", "key_id": None, "detail": {}, "hash": "0" * 64, "at": "2026-11-25T00:00:00.000Z"}
    events = [common | {"id": 1, "event": "key_revoked", "key_id": "gbk_1"}, common | {"id": 2, "event": "account_frozen"}]
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    result = office.run(*(file if each == file.name else each for each in command), answers=[answer for _, answer in answered])
    assert [path for _, path, _ in office.asked] == [path for path, _ in answered]
    assert result.exit_code == 1
    assert result.stderr.endswith(f"Error: this was carried out, but not all of it could be printed: {unprinted}\n")
