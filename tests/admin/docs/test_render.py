"""The guide's pages from values alone: nothing left out, both languages alike, texts escaped, no secret read."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from markupsafe import Markup

from admin.api import openapi as admin_openapi
from admin.api import table
from admin.api.handlers import AccountApi
from admin.docs import markup, openapi, programs, refusals, render
from admin.docs.facts import GateFacts, read_facts
from admin.errors import NoEndpoint
from gateway.admission.dialects.rfc9421 import ALGORITHMS
from gateway.admission.sessions import SESSIONS
from gateway.config.settings import Auth, Limits
from gateway.errors import ConfigError

ROOT = Path(__file__).parents[3]
ADMIN_API = {"paths": {"/api/v1/keys": {"post": {"operationId": "create", "security": [{"bearer": []}]}}}}


def admin_api() -> dict[str, Any]:
    services: Any = SimpleNamespace(key_limit=30)
    api = AccountApi(services, services, services, services, services)
    return admin_openapi.document(table.operations(api), version="1", server="https://keys.example.com")


def environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(ROOT / "admin" / "docs" / "templates")
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    look = SimpleNamespace(name="<b>", has_colours=False)
    made.globals.update(asset=lambda name: f"/static/{name}", brand=look, logo_url="/static/mark.svg")
    return made


def made(facts: GateFacts) -> dict[tuple[str, str], str]:
    gateway_api = openapi.document(facts, version="1", server="https://api.example.com")
    source = render.Source(facts, "https://api.example.com", ADMIN_API, gateway_api)
    return render.pages(source, environment())


@pytest.fixture(scope="module")
def facts() -> GateFacts:
    return read_facts(ROOT / "config" / "gateway.toml")


@pytest.mark.parametrize("language", ["en", "id"])
def test_the_methods_of_a_session_that_no_table_lists_are_named_beside_the_tables(facts, language):
    section = made(facts)["guide", language].partition('id="methods"')[2].partition("</section>")[0]
    own = [name for session in SESSIONS.values() for name in (session.log_in, session.log_out, session.state) if name]
    assert "session.status" in own
    assert [name for name in own if f"<code>{name}</code>" not in section] == []


def test_every_code_that_is_raised_has_a_cause_and_a_cure_in_both_languages():
    assert set(render.CAUSES) == {code.code for code in refusals.codes()}
    assert {len(texts) for told in render.CAUSES.values() for texts in (told["cause"], told["cure"])} == {2}
    assert all(text.strip() for told in render.CAUSES.values() for texts in told.values() for text in texts)
    assert NoEndpoint.code in render.CAUSES


def test_the_limits_that_are_explained_exist():
    known = set(Limits.model_fields) | set(Auth.model_fields) | {"per_account"}
    assert set(render.TEXTS["limits"]) <= known
    assert "max_tunnels_per_key" in render.TEXTS["limits"]


def test_every_algorithm_of_message_signatures_is_named_in_both_languages():
    (told,) = (section for section in render.TEXTS["sections"] if section["id"] == "rfc9421")
    for text in (told["en"][1], told["id_"][1]):
        assert [name for name in ALGORITHMS if name.replace("hmac-sha256", "hmac_sha256(") not in text] == []


def test_both_languages_have_the_same_anchors_and_every_code_is_one(facts):
    pages = made(facts)
    anchors = {language: re.findall(r'\sid="([^"]+)"', pages["guide", language]) for language in ("en", "id")}
    assert anchors["en"] == anchors["id"]
    assert len(anchors["en"]) == len(set(anchors["en"]))
    assert {code.code for code in refusals.codes()} <= set(anchors["en"])


def test_a_dialect_that_is_not_spoken_is_not_explained(facts):
    only = facts.model_copy(update={"auth": Auth(dialects=("binance",))})
    page = made(only)["guide", "en"]
    assert ('id="binance"' in page, 'id="mobee"' in page, 'id="rfc9421"' in page) == (True, False, False)


def test_limits_are_those_of_the_configuration(facts):
    changed = facts.model_copy(update={"limits": Limits(max_tunnels_per_key=7)})
    assert re.search(r'id="limit-max_tunnels_per_key">.*</td><td>7</td>', made(changed)["guide", "id"])


def test_what_the_configuration_says_cannot_become_markup(facts):
    route = facts.routes[0].model_copy(update={"summary": "<script>alert(1)</script>"})
    page = made(facts.model_copy(update={"routes": (route,)}))["guide", "en"]
    assert "<script" not in page
    assert "<b>" not in page


@given(st.text(alphabet=st.sampled_from("<>&\"'`*[]()#- \nab")))
def test_no_text_makes_an_element_that_the_little_of_markdown_does_not_have(text):
    done = markup.html(text)
    assert isinstance(done, Markup)
    assert set(re.findall(r"<(\w+)", done)) <= {"p", "ul", "li", "code", "strong", "a", "pre"}


def test_the_gateways_secrets_are_not_looked_at(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[stores]\npostgres = "file:nowhere"\nredis = "env:NOWHERE"\n[vault]\nkeys = "file:nowhere"\n[limits]\nper_key = "5/second"\n'
    )
    assert str(read_facts(file).limits.per_key) == "5/second"
    file.write_text('[limits]\nper_key = "often"\n')
    with pytest.raises(ConfigError, match=r"limits\.per_key"):
        read_facts(file)


def test_an_example_of_a_schema_is_shown_and_examples_in_code_have_this_gateways_address(facts):
    schema = {"properties": {"label": {"type": "string", "examples": ["Grid bot"]}, "days": {"type": "integer"}}}
    body = {"content": {"application/json": {"schema": schema}}}
    assert json.loads(render.example({}, {"requestBody": body})) == {"label": "Grid bot", "days": 0}
    guide = made(facts)["guide", "en"]
    assert "session.py wss://api.example.com/ws KEYFILE" in guide
    assert "127.0.0.1" not in guide.partition('id="sessions"')[2].partition('id="programs"')[0]


def test_an_example_says_how_it_is_run_and_what_it_needs(facts):
    for language, needs in (("en", "Needs"), ("id", "Membutuhkan")):
        told = made(facts)["guide", language].partition('id="example-python-order.py"')[2].partition("</p>")[0]
        assert f"<code>python order.py URL KEYFILE</code>. {needs}: <code>pip install requests</code>." in told


def test_the_indonesian_text_of_an_example_shows_the_same_code_as_the_english_one():
    found = [example for part in programs.examples().values() for example in part]
    for example in found:
        assert set(re.findall("`[^`]+`", example.about)) <= set(re.findall("`[^`]+`", render.TEXTS["examples"][example.name]))
    assert {example.name for example in found} == set(render.TEXTS["examples"])


def test_a_read_that_may_share_its_signature_is_not_said_to_count_once(facts):
    guide = made(facts)["guide", "en"]
    rows = {
        match: re.findall(r"<td>([^<]*)</td></tr>", guide.partition(f"<code>{match}</code>")[2])[0]
        for match in ("GET /api/v3/order", "POST /v1/orders")
    }
    assert rows == {"GET /api/v3/order": "shared by reads", "POST /v1/orders": "once"}


def test_every_body_that_the_reference_offers_is_one_that_its_operation_takes():
    document = admin_api()
    tried = [
        (told["operationId"], schema, json.loads(render.example(document, told)))
        for operations in document["paths"].values()
        for told in operations.values()
        for schema in [told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")]
        if schema is not None
    ]
    assert {"createKey", "beginStepUp", "deleteKey"} <= {name for name, _, _ in tried}
    for name, schema, example in tried:
        validator = Draft202012Validator({**schema, "components": document["components"]})
        assert [error.message for error in validator.iter_errors(example)] == [], (name, example)
