"""gerbang check: a good configuration passes, a bad one names everything that is wrong with it, a request is explained."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli import main
from gateway.admission.verdict import UNSTATED

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLE = CONFIG / "gateway.toml"


def check(*arguments):
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.mark.parametrize("name", ["gateway.toml", "admin.toml"])
def test_the_shipped_examples_pass_and_say_which_variables_a_service_will_need(name, monkeypatch):
    monkeypatch.delenv("GERBANG_REDIS", raising=False)
    result = check(CONFIG / name)
    assert (result.exit_code, result.stderr.count("GERBANG_REDIS is not set here")) == (0, 1), result.output
    assert "valid" in result.stdout


@pytest.mark.parametrize("file", [EXAMPLE, CONFIG.parent / "deploy" / "local" / "templates" / "gateway.toml"], ids=["example", "demo"])
def test_a_binance_read_can_pass_only_once_in_what_is_shipped_for_its_signature_fits_a_trade_too(file):
    routes = [route for route in tomllib.loads(file.read_text())["routes"] if "/api/v3/" in route["match"] and route["scope"] != "public"]
    assert len(routes) > 1
    assert [route["match"] for route in routes if route["scope"] != "trade" and route.get("replay") != "strict"] == []


ADMIN = """
public_url = "env:UNSET_URL"
stores = { postgres = "env:UNSET_PG", redis = "env:UNSET_REDIS" }
vault = { keys = "env:UNSET_VAULT" }
oidc = { issuer = "env:UNSET_URL", audience = "env:UNSET_CLIENT", client_secret = "env:UNSET_SECRET" }
internal = { tokens = { alice = "env:UNSET_ALICE", bob = "env:UNSET_BOB" }, notify = ["env:UNSET_MAIL"] }
mail = { smtp = "env:UNSET_SMTP", from = "env:UNSET_MAIL" }
webhooks = { url = "env:UNSET_URL", secret = "env:UNSET_WEBHOOK" }
upstreams = { spot = { key_events = "env:UNSET_EVENTS", secret = "env:UNSET_EVENTS_SECRET" } }
listen = { internal = "env:UNSET_LISTEN" }
keys = { per_account = "env:UNSET_NUMBER" }
limits = { per_account = "env:UNSET_RATE" }
client_ip = { trusted_proxies = ["env:UNSET_NETWORK"] }
"""


def test_a_variable_that_is_unset_here_is_a_note_whatever_form_its_setting_has(tmp_path):
    file = tmp_path / "admin.toml"
    file.write_text(ADMIN)
    result = check(file)
    assert (result.exit_code, result.stderr.count("is not set here")) == (0, ADMIN.count("env:")), result.stderr
    file.write_text(ADMIN.replace("keys = { per", "keys = { idle_days = -1, per"))
    result = check(file)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if "note" not in line][1:] == ["keys.idle_days: must be at least 0"]


def test_two_names_that_share_a_variable_share_a_token_set_or_not(tmp_path):
    file = tmp_path / "admin.toml"
    file.write_text(ADMIN.replace("UNSET_BOB", "UNSET_ALICE"))
    assert "two names share one token" in check(file).stderr


def test_strict_makes_an_unset_variable_an_error(monkeypatch):
    monkeypatch.delenv("GERBANG_REDIS", raising=False)
    result = check(EXAMPLE, "--strict")
    assert result.exit_code == 1
    assert "stores.redis: the environment variable GERBANG_REDIS is not set" in result.stderr


def test_every_error_is_told_at_once_with_its_keys_path(tmp_path):
    broken = tmp_path / "gateway.toml"
    text = EXAMPLE.read_text()
    for old, new in (
        ('per_key = "1200/minute"', 'per_key = "fast"'),
        ("trusted_proxies = []", 'trusted_proxies = ["10.0.0.1/8"]'),
        ("workers = 1 ", "worker = 1 "),
        ('summary = "Your balances"\nscope = "read"\nupstream = "spot"', 'scope = "read"\nupstream = "nope"'),
    ):
        assert old in text
        text = text.replace(old, new)
    broken.write_text(text)
    result = check(broken)
    assert result.exit_code == 1
    for path in ("limits.per_key", "client_ip.trusted_proxies[0]", "listen.worker", "routes[3].upstream"):
        assert f"\n{path}: " in result.stderr


def test_a_pattern_that_cannot_be_read_is_told_beside_another_routes_unknown_scope(tmp_path):
    broken = tmp_path / "gateway.toml"
    text = EXAMPLE.read_text()
    broken.write_text(text.replace('"GET /v1/wallets"', '"GET v1/wallets"').replace('scope = "trade"', 'scope = "sell"'))
    told = check(broken).stderr
    assert "\nroutes[3].match: " in told
    assert told.count(".match: ") == 1
    assert ".scope: " in told


def test_a_route_that_weighs_more_than_the_whole_limit_is_an_error(tmp_path, monkeypatch):
    for name in ("POSTGRES", "REDIS", "VAULT_KEYS"):
        monkeypatch.delenv(f"GERBANG_{name}", raising=False)
    heavy = tmp_path / "gateway.toml"
    heavy.write_text(EXAMPLE.read_text().replace('per_key = "1200/minute"', 'per_key = "4/minute"'))
    result = check(heavy)
    assert result.exit_code == 1, result.output
    assert "is above the whole of limits.per_key, 4/minute" in result.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\xff", "not UTF-8"), (b"a = = 1", "not TOML"), (b"", "stores: is missing")],
)
def test_a_file_that_is_no_configuration_is_told(tmp_path, content, told):
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    result = check(file)
    assert (result.exit_code, told in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize(
    ("request_line", "lines"),
    [
        (
            "GET /v1/wallets",
            ["GET /v1/wallets (routes[3])", "scope     read", "spot: http://127.0.0.1:8092", "5 of 1200/minute"],
        ),
        (
            "delete /v1/orders/17?x=1",
            ["DELETE /v1/orders/{id} (routes[7])", "scope     trade", "replay    strict: each signature is accepted once"],
        ),
        ("GET /v1/wallets", ["replay    off, but for the dialect binance: reads may share a signature, never with a trade"]),
        ("GET /v1/markets/summary", ["replay    off\n"]),
        ("GET /api/v3/order", ["replay    strict: reads may share a signature, never with a trade"]),
        ("GET /v1/markets/summary", ["of 120000/minute per address"]),
        ("GET /gateway/v1/time", ["by the gate itself"]),
    ],
)
def test_a_request_is_explained(request_line, lines):
    result = check(EXAMPLE, "--explain", request_line)
    assert result.exit_code == 0, result.stderr
    for line in lines:
        assert line in result.stdout


@pytest.mark.parametrize(
    ("request_line", "status", "told"),
    [
        ("GET /nowhere", 1, "404 no_route"),
        ("PUT /v1/orders", 1, "405 method_not_allowed"),
        ("GET /v1//orders", 1, "400 ambiguous_path"),
        ("/v1/orders", 2, "METHOD /path"),
        ("GET v1", 2, "METHOD /path"),
    ],
)
def test_a_request_that_would_not_pass_is_told_as_the_gate_would(request_line, status, told):
    result = check(EXAMPLE, "--explain", request_line)
    assert (result.exit_code, told in result.stderr) == (status, True), result.stderr


@pytest.mark.parametrize(
    ("setting", "trusted", "noted"),
    [
        ("ignore", '["192.0.2.10/32"]', True),
        ("ignore", "[]", False),
        ("", '["192.0.2.10/32"]', False),
        ("refuse", '["192.0.2.10/32"]', False),
    ],
)
def test_that_content_which_no_proxy_speaks_of_passes_is_noted(tmp_path, setting, trusted, noted):
    file = tmp_path / "gateway.toml"
    text = re.sub(r"(?m)^unseen_content = .*$", f'unseen_content = "{setting}"' if setting else "", EXAMPLE.read_text())
    file.write_text(text.replace("trusted_proxies = []", f"trusted_proxies = {trusted}"))
    result = check(file)
    assert result.exit_code == 0, result.output
    assert ("note: auth.unseen_content: " in result.stderr) is noted
    guide = (CONFIG.parent / "deploy" / "README.md").read_text()
    for section in re.findall(r'deploy/README.md, "([^"]+)"', result.stderr + UNSTATED):
        assert f"## {section}\n" in guide


def test_file_references_are_read_beside_the_file(tmp_path, monkeypatch):
    copy = tmp_path / "gateway.toml"
    shutil.copy(EXAMPLE, copy)
    copy.write_text(copy.read_text().replace("env:GERBANG_REDIS", "file:redis-url"))
    assert "redis-url cannot be read" in check(copy).stderr
    (tmp_path / "redis-url").write_text("redis://localhost\n")
    assert check(copy).exit_code == 0


def test_a_route_under_maintenance_is_explained_and_its_text_is_one_line(tmp_path):
    file = tmp_path / "gateway.toml"
    closed = EXAMPLE.read_text().replace(
        'match = "GET /v1/wallets"', 'match = "GET /v1/wallets"\nmaintenance = "Closed until 10:00 WIB"', 1
    )
    file.write_text(closed)
    result = check(file, "--explain", "GET /v1/wallets")
    assert "closed    503 maintenance, retry after 60000 ms: Closed until 10:00 WIB" in result.stdout, result.output
    assert "closed" not in check(file, "--explain", "GET /v1/markets/summary").stdout
    for text in (" ", "two\\nlines"):
        file.write_text(closed.replace("Closed until 10:00 WIB", text))
        assert "routes[3].maintenance" in check(file).stderr


def test_an_admin_configuration_names_what_is_wrong_with_the_gateways_that_its_guide_is_made_of(tmp_path):
    admin, gateway = tmp_path / "admin.toml", tmp_path / "gateway.toml"
    text = (CONFIG / "admin.toml").read_text() + '\n[docs]\ngateway_config = "gateway.toml"\n'
    admin.write_text(text)
    result = check(admin)
    assert (result.exit_code, "gateway.toml" in result.stderr, "cannot be read" in result.stderr) == (1, True, True), result.output
    gateway.write_text(EXAMPLE.read_text().replace('per_key = "1200/minute"', 'per_key = "often"'))
    assert "limits.per_key" in check(admin).stderr
    gateway.write_text(EXAMPLE.read_text())
    assert check(admin).exit_code == 0
