"""The admin service's settings: the example is usable, and every problem is told with its place."""

from pathlib import Path
from typing import Any

import pytest

from admin.config import AdminSettings, load_settings
from gateway.config.changes import Change, changes
from gateway.config.values import Address
from gateway.errors import ConfigError

EXAMPLE = Path("config/admin.toml")
TOKEN = "t" * 24
ENVIRONMENT = {
    "GERBANG_ADMIN_POSTGRES": "postgresql://gerbang_admin:hunter2@db/gerbang",
    "GERBANG_REDIS": "redis://cache",
    "GERBANG_VAULT_KEYS": "k1:AAAA",
    "GERBANG_INTERNAL_TOKEN": TOKEN,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def example(environment: None) -> str:
    return EXAMPLE.read_text()


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "admin.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_the_example_is_valid_and_shows_the_defaults(example: str) -> None:
    settings = load_settings(EXAMPLE)
    assert settings.listen.internal == Address("127.0.0.1", 8093)
    for section, default in AdminSettings.model_fields.items():
        if default.default is not None and not default.is_required():
            assert getattr(settings, section) == default.get_default(call_default_factory=True), section


def test_a_change_is_told_by_the_keys_of_the_file(tmp_path: Path, example: str) -> None:
    def settings(host: str) -> AdminSettings:
        upstream = f'[upstreams.spot]\nkey_events = "https://{host}/ended"\nsecret = "whsec_{"A" * 32}"\n'
        mail = f'[mail]\nsmtp = "smtp://127.0.0.1:25"\nfrom = "keys@{host}"\n'
        (tmp_path / "admin.toml").write_text(example + upstream + mail)
        return load_settings(tmp_path / "admin.toml")

    assert changes(settings("a.example"), settings("b.example")) == [
        Change("changed", "mail.from", "keys@a.example", "keys@b.example"),
        Change("changed", "upstreams.spot.key_events", "https://a.example/ended", "https://b.example/ended"),
    ]


def test_a_scheme_in_capitals_is_no_other_scheme(tmp_path: Path, example: str) -> None:
    (tmp_path / "admin.toml").write_text(example.replace('public_url = "https:', 'public_url = "HTTPS:'))
    assert load_settings(tmp_path / "admin.toml").public_url == "https://keys.exchange.example"


def test_the_example_names_every_setting(example: str) -> None:
    def names(model: Any) -> set[str]:
        found = set()
        for name, field in model.model_fields.items():
            found.add(name)
            if hasattr(field.annotation, "model_fields"):
                found |= names(field.annotation)
        return found

    missing = {name for name in names(AdminSettings) if name not in example}
    assert not missing


def test_no_secret_shows_in_the_settings_repr(example: str) -> None:
    shown = repr(load_settings(EXAMPLE))
    assert TOKEN not in shown
    assert "hunter2" not in shown


def test_a_missing_variable_is_named_with_its_key(monkeypatch: pytest.MonkeyPatch, environment: None, tmp_path: Path) -> None:
    monkeypatch.delenv("GERBANG_INTERNAL_TOKEN")
    assert "GERBANG_INTERNAL_TOKEN is not set" in problems(tmp_path, EXAMPLE.read_text())["internal.token"]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('issuer = "https://login', 'issuer = "http://login', "oidc.issuer"),
        ('algorithms = ["RS256"]', 'algorithms = ["HS256"]', "oidc.algorithms[0]"),
        ('algorithms = ["RS256"]', 'algorithms = ["none"]', "oidc.algorithms[0]"),
        ('algorithms = ["RS256"]', "algorithms = []", "oidc.algorithms"),
        ('"env:GERBANG_INTERNAL_TOKEN"', '"short"', "internal.token"),
        ("per_account = 30", "per_account = 0", "keys.per_account"),
        ('internal = "127.0.0.1:8093"', 'internal = "0.0.0.0:8090"', ""),
        ("per_account = 30", "per_acount = 30", "keys.per_acount"),
        ('public_url = "https://keys.exchange.example"', 'public_url = "keys.exchange.example"', "public_url"),
        ('public_url = "https://keys.exchange.example"', 'public_url = "https://h:99999"', "public_url"),
    ],
)
def test_a_wrong_setting_is_refused_at_its_place(example: str, tmp_path: Path, old: str, new: str, path: str) -> None:
    assert old in example
    assert path in problems(tmp_path, example.replace(old, new))


def test_plain_http_is_accepted_on_this_machine(example: str, tmp_path: Path) -> None:
    file = tmp_path / "admin.toml"
    file.write_text(example.replace("https://login.exchange.example", "http://127.0.0.1:8091"))
    assert load_settings(file).oidc.issuer == "http://127.0.0.1:8091"


def test_who_is_to_be_told_of_bulk_acts_needs_a_mail_server(example: str, tmp_path: Path) -> None:
    told = example.replace("notify = []", 'notify = ["security@exchange.example"]')
    assert "requires [mail]" in problems(tmp_path, told)[""]
    wrong = example.replace("notify = []", 'notify = ["a@b.example, c@d.example"]')
    assert "internal.notify[0]" in problems(tmp_path, wrong)
