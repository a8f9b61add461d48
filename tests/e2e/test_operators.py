"""An operator's questions and acts on a running system: what was said is compared with what is so."""

import json
import time

import pytest

from deploy.client import ask

KEY = {"ip_access": "whitelisted", "ip_allowlist": ["8.8.8.8"]}


def status_of(bot) -> str | None:
    answer = bot.call("GET", "/v1/wallets")
    return "passes" if answer.status == 200 else answer.code


def test_why_a_customer_is_refused_is_answered_without_a_log(customer_of, bot_of, operator):
    customer = customer_of()
    key = customer.create_key(**KEY)
    assert status_of(bot_of(key, address="127.0.2.1")) == "ip_not_allowed"
    deadline = time.monotonic() + 60
    while True:  # the gate writes its counts every few seconds
        found = json.loads(operator("refusals", "list", "--account", customer.account, "--json").stdout)
        if found["count"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (refused,) = found["refusals"]
    assert (refused["code"], refused["key_id"], refused["client_ip"]) == ("ip_not_allowed", key["key_id"], "127.0.2.1")


def test_what_matches_is_revoked_and_nothing_else(customer_of, bot_of, operator):
    customer = customer_of()
    keys = [customer.create_key(label=label) for label in ("grid one", "tax")]
    bots = [bot_of(key, address=f"127.0.2.{number}") for number, key in enumerate(keys, 2)]
    assert [status_of(bot) for bot in bots] == ["passes", "passes"]
    where = ("--where", "--account", customer.account, "--label", "GRID")
    dry = operator("keys", "revoke", *where, "--dry-run")
    assert (dry.returncode, dry.stdout.split(), "1 key matches" in dry.stderr) == (0, [keys[0]["key_id"]], True), dry
    assert [status_of(bot) for bot in bots] == ["passes", "passes"]
    done = operator("keys", "revoke", *where, "--reason", "case 4711", "--yes")
    assert (done.returncode, "1 key is revoked" in done.stdout) == (0, True), done
    bots[0].becomes("invalid_credentials")
    assert status_of(bots[1]) == "passes"
    listed = operator("keys", "list", "--account", customer.account)
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["revoked", "active"]
    again = operator("keys", "revoke", keys[0]["key_id"], "--reason", "case 4712")
    assert (again.returncode, "was already revoked" in again.stdout, "case 4711" in again.stdout) == (0, True, True), again
    told = json.loads(operator("audit", "list", "--account", customer.account, "--actor", "operator", "--json").stdout)["events"]
    assert [(event["event"], event["detail"]["reason"]) for event in told] == [("operator_note", "case 4712"), ("key_revoked", "case 4711")]


def test_a_thaw_does_not_say_that_keys_pass_which_do_not(system, customer_of, bot_of, operator):
    customer = customer_of()
    bot = bot_of(customer.create_key(), address="127.0.2.4")
    assert status_of(bot) == "passes"
    assert operator("accounts", "freeze", customer.account, "--reason", "case 4711").returncode == 0
    bot.becomes("account_frozen")
    revoke_kyc(system, customer.account)
    thawed = operator("accounts", "thaw", customer.account, "--reason", "closed")
    assert (thawed.returncode, "its keys are still refused" in thawed.stdout) == (0, True), thawed
    assert status_of(bot) == "account_frozen"


@pytest.mark.parametrize("service", ["gateway", "admin"])
def test_doctor_finds_nothing_wrong_with_a_system_that_runs(system, operator, service):
    done = operator("doctor", "--config", str(system.folder / f"{service}.toml"))
    assert (done.returncode, "WRONG" in done.stdout) == (0, False), done.stdout + done.stderr
    assert "ok     vault.keys: opens every stored secret" in done.stdout


def revoke_kyc(system, account: str) -> None:
    token = (system.folder / "secrets/internal-token").read_text().strip()
    assert ask("PUT", f"{system.internal_url}/internal/v1/accounts/{account}", body={"kyc": "revoked"}, token=token).status == 200
