"""The customers' guide as ``gerbang up`` serves it: its examples sign and trade, its links and a refusal's ``type`` lead somewhere."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from admin.docs.programs import EXAMPLES
from admin.pages.examples import signed_requests
from tests.support.lacking import tool

CLIENTS = Path(__file__).parents[2] / "deploy" / "clients"
PROGRAMS = {
    "python": [sys.executable, CLIENTS / "python" / "sign.py"],
    "node": ["node", CLIENTS / "node" / "sign.mjs"],
    "php": ["php", CLIENTS / "php" / "sign.php"],
    "go": ["go", "run", CLIENTS / "go" / "sign.go"],
    "bash": ["bash", "-c", 'GERBANG_KEY=$2 GERBANG_DIALECT=$3 exec "$0" "$4" "$1$5" ${6+"$6"}', CLIENTS / "bash" / "gerbang.sh"],
}
JSON_ORDER = json.dumps({"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"})
FORM_ORDER = "symbol=BTCIDR&side=BUY&type=LIMIT&timeInForce=GTC&price=900000000&quantity=0.001"
TRADES = {"mobee": ("/v1/orders", JSON_ORDER), "binance": ("/api/v3/order", FORM_ORDER), "rfc9421": ("/v1/orders", JSON_ORDER)}
READS = {"mobee": "/v1/orders?status=open", "binance": "/api/v3/openOrders?symbol=BTCIDR", "rfc9421": "/v1/orders?status=open"}


@pytest.fixture(params=PROGRAMS)
def program(request, system, tmp_path):
    """Runs an example with a key: ``program(key, dialect, method, target, body)``."""
    command = PROGRAMS[request.param]
    tool(str(command[0]), "its example is NOT tested")

    def run(key, *arguments):
        file = tmp_path / "key.json"
        private = key["secret"].startswith("-----")
        file.write_text(json.dumps({"key_id": key["key_id"], "private_key" if private else "secret": key["secret"]}))
        return subprocess.run([*command, system.gateway_url, file, *arguments], capture_output=True, text=True, timeout=60)  # type: ignore[list-item]

    return run


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519", "rsa-sha256"])
def test_an_example_signs_in_every_dialect_and_shows_why_it_is_refused(program, key_of, algorithm):
    key = key_of(algorithm)
    for dialect, (path, order) in TRADES.items():
        placed = program(key, dialect, "POST", path, order)
        assert placed.returncode == 0, (dialect, placed.stderr)
        number = next(json.loads(placed.stdout)[name] for name in ("id", "orderId") if name in json.loads(placed.stdout))
        listed = program(key, dialect, "GET", READS[dialect])
        assert str(number) in listed.stdout, (dialect, listed.stderr)
    refused = program(key_of(scopes=["read"]), "rfc9421", "POST", "/v1/orders", JSON_ORDER)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("403 ")
    assert "scope_not_granted" in refused.stderr


BESIDE_A_KEY = {
    "example": ["bash", "-c"],
    "example-python": [sys.executable, "-c"],
    "example-node": ["node", "--input-type=module", "-e"],
}


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519", "rsa-sha256"])
def test_each_example_beside_a_new_key_runs_as_it_stands(system, key_of, tmp_path, algorithm):
    key = key_of(algorithm)
    (tmp_path / "my-key.json").write_text(json.dumps({"key_id": key["key_id"], "secret": key["secret"]}))
    (tmp_path / "private.pem").write_text(key["secret"])
    shown = [example for example in signed_requests(system.gateway_url) if example.algorithm == algorithm]
    assert [example.place for example in shown] == list(BESIDE_A_KEY)
    for example in shown:
        text = example.text.replace("KEY_ID", key["key_id"]).replace("KEY_FILE", "my-key.json")
        assert key["secret"] not in text
        done = subprocess.run([*BESIDE_A_KEY[example.place], text], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, (example.place, done.stdout, done.stderr)
        assert json.loads(done.stdout)["key_id"] == key["key_id"], example.place


def test_every_command_of_the_reference_runs_as_it_stands(site, key_of, tmp_path):
    key = key_of()
    (tmp_path / "key.json").write_text(json.dumps({"key_id": key["key_id"], "secret": key["secret"]}))
    (tmp_path / "gerbang.sh").write_text(site.get("/docs/examples/bash/gerbang.sh").text)
    found = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", site.get("/docs/en/api").text, re.DOTALL)
    commands = [html.unescape(command) for command in found]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert isinstance(json.loads(done.stdout), dict), command


@pytest.mark.parametrize("language", ["en", "id"])
def test_the_commands_for_a_key_pair_lead_to_a_key_that_signs(system, site, customer_of, tmp_path, language):
    section = site.get(f"/docs/{language}").text.partition('<section id="signing"')[2].partition("</section>")[0]
    (block,) = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", section, re.DOTALL)
    pair, file = html.unescape(block).split("python3 ")

    def run(commands):
        return subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    key = customer_of().create_key(algorithm="ed25519", public_key=run(pair))
    run("python3 " + file.replace("gbk_…", key["key_id"]))
    assert (tmp_path / "key.json").stat().st_mode & 0o077 == 0
    command = [*PROGRAMS["python"], system.gateway_url, tmp_path / "key.json", "mobee", "GET", "/v1/wallets"]
    subprocess.run(command, check=True, capture_output=True)


def test_every_example_is_downloaded_as_it_is_shown_with_this_gateways_address(system, site):
    shown = {
        name: html.unescape(text)
        for name, text in re.findall(
            r'href="/docs/examples/([^"]+)" download.*?<code>(.*?)</code></pre>', site.get("/docs/en").text, re.DOTALL
        )
    }
    assert set(shown) == {name for names in EXAMPLES.values() for name in names}
    for name, text in shown.items():
        answer = site.get(f"/docs/examples/{name}")
        assert (answer.text, answer.headers["Content-Disposition"]) == (text, "attachment"), name
    assert system.gateway_url in "".join(shown.values())


def test_every_file_that_the_guide_shows_is_run_by_a_test():
    tests = Path(__file__).parents[1]
    run = "".join(file.read_text() for file in (*tests.glob("deploy/clients/*.py"), Path(__file__)))
    shown = [Path(name) for names in EXAMPLES.values() for name in names]
    assert len(shown) > 10
    assert [name for name in shown if f'"{name.name}"' not in run and f'"{name.stem}"' not in run] == []


@pytest.fixture(scope="module")
def site(system):
    with httpx.Client(base_url=system.admin_url.replace("127.0.0.1", "localhost"), trust_env=False, timeout=20) as client:
        yield client


def ids(text: str) -> set[str]:
    return set(re.findall(r'\sid="([^"]+)"', text))


def test_every_link_leads_somewhere(site):
    pages = {path: site.get(path).text for path in ("/docs/en", "/docs/id", "/docs/en/api", "/docs/id/api")}
    dead = []
    for page, text in pages.items():
        links = set(re.findall(r'(?:href|src)="([^"]+)"', text))
        assert links
        assert [link for link in links if link.startswith("//") or "://" in link] == []
        for link in links:
            path, _, fragment = link.partition("#")
            answer = site.get(path, follow_redirects=True) if path and path not in pages else None
            if answer is not None and answer.status_code != 200:
                dead.append((page, link, answer.status_code))
            if fragment and fragment not in ids(pages[path or page]):
                dead.append((page, link, "no such anchor"))
    assert dead == []


@pytest.mark.parametrize("page", ["", "/api"])
def test_both_languages_have_the_same_anchors(site, page):
    english, indonesian = (site.get(f"/docs/{language}{page}").text for language in ("en", "id"))
    assert ids(english) == ids(indonesian)
    assert len(re.findall(r'\sid="', english)) == len(ids(english))


def test_the_type_of_a_refusal_leads_to_its_cause_and_cure(system, site):
    refused = httpx.get(f"{system.gateway_url}/v1/wallets", trust_env=False).json()
    page, _, anchor = refused["type"].partition("#")
    assert page == f"{site.base_url}/docs".replace("//docs", "/docs")
    for language, word in (("en", "What to do."), ("id", "Yang harus dilakukan.")):
        answer = site.get("/docs", headers={"Accept-Language": language})
        assert answer.headers["Content-Language"] == language
        assert word in answer.text.partition(f'id="{anchor}"')[2].partition("</article>")[0]


def test_every_route_of_the_running_gateway_is_listed_with_what_it_is_for(system, site):
    configured = re.findall(r'^match = "(.*)"\nsummary = "(.*)"$', (system.folder / "gateway.toml").read_text(), re.MULTILINE)
    text = site.get("/docs/en").text.replace("&#39;", "'")
    assert len(configured) > 40
    assert [route for route in configured if f'<code>{route[0]}</code></td><td lang="en">{route[1]}</td>' not in text] == []


def test_what_the_gateway_answers_is_as_its_openapi_says(system, site, demo_bot):
    paths = site.get("/docs/gateway.json").json()["paths"]
    for path, operation in paths.items():
        schema = operation["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        content = demo_bot.call("GET", path).content
        assert set(content) == set(schema["required"]) == set(schema["properties"]), path
