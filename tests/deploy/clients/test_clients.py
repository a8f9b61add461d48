"""deploy/clients: what each example sends is a request that the dialect's rules accept, checked against a server that keeps them."""

import ast
import base64
import hmac
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from gateway.runtime import clock
from tests.support.lacking import tool

CLIENTS = Path(__file__).parents[3] / "deploy" / "clients"
KEY_ID, SECRET = "gbk_0123456789abcdefghijklMNOPQR", "gbs_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM"
BODY = {"symbol": "BTC-IDR", "note": "é €"}
TARGETS = ["/v1/wallets", "/v1/orders?status=open&symbol=BTC-IDR", "/v1/orders/a%20b"]


class Checker(BaseHTTPRequestHandler):
    """Checks each request by the contract's words, and answers what it saw."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        timestamp = self.headers["X-Request-Timestamp"]
        message = f"{self.command}\n{self.path.partition('?')[0]}\n{timestamp}".encode() + (b"\n" + body if body else b"")
        expected = base64.b64encode(hmac.digest(SECRET.encode(), message, "sha256")).decode()
        fresh = abs(int(timestamp) - clock.now_ms()) < 60_000
        good = self.headers["X-API-Key"] == KEY_ID and hmac.compare_digest(self.headers["X-Request-Signature"], expected) and fresh
        seen = {"method": self.command, "target": self.path, "body": body.decode()}
        content = json.dumps(seen if good else {"code": "invalid_credentials", "detail": message.decode()}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Checker)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"key_id": KEY_ID, "secret": SECRET}))
    return file


def module(name):
    spec = importlib.util.spec_from_file_location(name, CLIENTS / "python" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def expect(seen, method, target, body=""):
    assert (seen["method"], seen["target"]) == (method, target)
    assert (json.loads(seen["body"]) if seen["body"] else "") == body


@pytest.mark.parametrize("target", TARGETS)
def test_requests(url, key_file, target):
    auth = module("with_requests").GerbangAuth.from_file(str(key_file))
    with requests.Session() as session:
        session.auth = auth
        expect(session.get(url + target).json(), "GET", target)
        expect(session.post(url + target, json=BODY).json(), "POST", target, BODY)
        expect(session.post(url + target, data=json.dumps(BODY)).json(), "POST", target, BODY)
        expect(session.delete(url + target).json(), "DELETE", target)


@pytest.mark.parametrize("target", TARGETS)
def test_httpx(url, key_file, target):
    with httpx.Client(auth=module("with_httpx").GerbangAuth.from_file(str(key_file)), trust_env=False) as client:
        expect(client.get(url + target).json(), "GET", target)
        expect(client.post(url + target, json=BODY).json(), "POST", target, BODY)
        expect(client.delete(url + target).json(), "DELETE", target)


async def test_httpx_async(url):
    async with httpx.AsyncClient(auth=module("with_httpx").GerbangAuth(KEY_ID, SECRET), trust_env=False) as client:
        expect((await client.post(url + "/v1/orders", json=BODY)).json(), "POST", "/v1/orders", BODY)


@pytest.mark.parametrize("target", TARGETS)
async def test_aiohttp(url, key_file, target):
    auth = module("with_aiohttp").gerbang_auth_from_file(str(key_file))
    async with aiohttp.ClientSession(middlewares=[auth]) as session:
        async with session.get(url + target) as answer:
            expect(await answer.json(content_type=None), "GET", target)
        async with session.post(url + target, json=BODY) as answer:
            expect(await answer.json(content_type=None), "POST", target, BODY)
        async with session.delete(url + target) as answer:
            expect(await answer.json(content_type=None), "DELETE", target)


@pytest.mark.parametrize("target", TARGETS)
def test_node(url, key_file, target):
    def node(*arguments):
        command = ["node", CLIENTS / "node" / "gerbang.mjs", url, key_file, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    expect(json.loads(node("GET", target).stdout), "GET", target)
    expect(json.loads(node("POST", target, json.dumps(BODY)).stdout), "POST", target, BODY)
    key_file.write_text(json.dumps({"key_id": KEY_ID, "secret": "gbs_wrong"}))
    refused = node("GET", target)
    assert refused.returncode == 1
    assert refused.stderr.startswith("401 invalid_credentials: ")


@pytest.mark.parametrize("target", TARGETS)
def test_bash(url, key_file, target):
    def run(*arguments):
        environment = os.environ | {"GERBANG_KEY": str(key_file)}
        return subprocess.run([CLIENTS / "bash" / "gerbang.sh", *arguments], env=environment, capture_output=True, text=True)

    def bash(*arguments):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    expect(bash("GET", url + target), "GET", target)
    expect(bash("POST", url + target, json.dumps(BODY)), "POST", target, BODY)
    expect(bash("POST", url + target, json.dumps(BODY, ensure_ascii=False)), "POST", target, BODY)
    expect(bash("DELETE", url + target), "DELETE", target)
    head = run("HEAD", url + target)
    assert (head.returncode, head.stdout.split()[1]) == (0, "200")
    key_file.write_text(json.dumps({"key_id": KEY_ID, "secret": "gbs_wrong"}, indent=2))
    refused = run("GET", url + target)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("401 ")
    assert "invalid_credentials" in refused.stderr


# Google's services as far as the script uses them, over Node's own: what they do is in Apps Script's reference.
GOOGLE = """
const { createHmac } = require("node:crypto");
const { execFileSync } = require("node:child_process");
const properties = JSON.parse(process.argv[2]);
globalThis.PropertiesService = { getScriptProperties: () => ({ getProperty: (name) => properties[name] }) };
globalThis.Utilities = {
  Charset: { UTF_8: "utf8" },
  computeHmacSha256Signature: (value, key) => [...new Int8Array(createHmac("sha256", key).update(value, "utf8").digest())],
  base64Encode: (bytes) => Buffer.from(Uint8Array.from(bytes)).toString("base64"),
};
globalThis.UrlFetchApp = { fetch: (url, options) => {
  const headers = Object.entries({ ...options.headers, ...(options.contentType && { "Content-Type": options.contentType }) });
  const output = execFileSync("curl", ["-s", "-X", options.method.toUpperCase(), "-w", "\\n%{http_code}",
    ...headers.flatMap(([name, value]) => ["-H", `${name}: ${value}`]), ...(options.payload ? ["--data-raw", options.payload] : []), url]);
  const [, text, code] = output.toString().match(/^([^]*)\\n(\\d+)$/);
  return { getContentText: () => text, getResponseCode: () => Number(code) };
} };
require("node:vm").runInThisContext(require("node:fs").readFileSync(process.argv[3], "utf8"));
const asked = JSON.parse(process.argv[4]);
try {
  console.log(JSON.stringify(asked.length === 1 ? GERBANG(asked[0]) : gerbangCall_(...asked)));
} catch (error) {
  console.log(JSON.stringify(error.message));
}
"""


def test_google_apps_script(url, tmp_path):
    harness = tmp_path / "google.cjs"
    harness.write_text(GOOGLE)

    def script(*asked, secret=SECRET):
        properties = json.dumps({"GERBANG_URL": url, "GERBANG_KEY": json.dumps({"key_id": KEY_ID, "secret": secret})})
        command = ["node", harness, properties, CLIENTS / "google-apps-script" / "Gerbang.gs", json.dumps(asked)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert script("/v1/wallets?x=1") == [["method", "target", "body"], ["GET", "/v1/wallets?x=1", ""]]
    expect(script("POST", "/v1/orders", BODY), "POST", "/v1/orders", BODY)
    assert script("/v1/wallets", secret="gbs_wrong").startswith("401 invalid_credentials: ")
    assert script("/v1/wallets", secret=None).startswith("GERBANG_KEY has no secret")


def test_the_smallest_program_is_at_most_thirty_lines_and_uses_nothing_but_requests():
    lines = (CLIENTS / "python" / "order.py").read_text().splitlines()
    assert len(lines) <= 30
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert imported - sys.stdlib_module_names == {"requests"}


ROWS = re.findall(r"^\| `([\w./-]+)` \| .* \| (.*) \|$", (CLIENTS / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", ["python/order.py", "node/gerbang.mjs"])
def test_a_program_that_signs_with_a_secret_says_so_when_the_key_file_has_none(file, url, key_file):
    key_file.write_text(json.dumps({"key_id": KEY_ID, "private_key": "PEM"}))
    command = [sys.executable] if file.endswith(".py") else ["node"]
    done = subprocess.run([*command, CLIENTS / file, url, key_file, "GET", "/v1/wallets"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the key file has none" in done.stderr


@pytest.mark.parametrize(
    "load",
    [
        module("with_requests").GerbangAuth.from_file,
        module("with_httpx").GerbangAuth.from_file,
        module("with_aiohttp").gerbang_auth_from_file,
    ],
)
def test_a_library_that_signs_with_a_secret_says_so_when_the_key_file_has_none(load, key_file):
    key_file.write_text(json.dumps({"key_id": KEY_ID, "private_key": "PEM"}))
    with pytest.raises(ValueError, match="the key file has none"):
        load(str(key_file))


def test_an_example_that_reaches_nobody_says_what_failed(key_file):
    """Node's fetch names it in the error's cause alone."""
    with socket.socket() as reserved:  # bound, and nobody listens
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{reserved.getsockname()[1]}"
        command = ["node", CLIENTS / "node" / "gerbang.mjs", f"http://{nowhere}", key_file, "GET", "/v1/wallets"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, nowhere in done.stderr) == (1, "", True)


def test_every_example_stands_in_the_readme():
    assert {file for file, _ in ROWS} == {str(path.relative_to(CLIENTS)) for path in CLIENTS.glob("*/*.*")}


@pytest.mark.parametrize(("file", "needs"), [row for row in ROWS if row[0].endswith(".py")])
def test_the_readme_says_what_is_to_be_installed_for_an_example(file, needs):
    tree = ast.walk(ast.parse((CLIENTS / file).read_text()))
    imports = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    foreign = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == set(re.findall(r"`pip install (\w+)`", needs))


SIGNING = {
    "python": [sys.executable, str(CLIENTS / "python" / "sign.py")],
    "node": ["node", str(CLIENTS / "node" / "sign.mjs")],
    "php": ["php", str(CLIENTS / "php" / "sign.php")],
    "go": ["go", "run", str(CLIENTS / "go" / "sign.go")],
}


@pytest.mark.parametrize("language", SIGNING)
def test_wrong_usage_is_told_in_one_line(language, key_file):
    command = SIGNING[language]
    tool(command[0], "its example is NOT tested")
    done = subprocess.run([*command, "http://127.0.0.1:9", key_file, "toString", "GET", "/v1/wallets"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.removesuffix("exit status 1\n").splitlines() == [
        f"{'go run' if language == 'go' else language} {Path(command[-1]).name} URL KEYFILE mobee|binance|rfc9421 METHOD TARGET [BODY]"
    ]


class Recorder(BaseHTTPRequestHandler):
    """Answers a request's target and header fields."""

    def do_GET(self):
        content = json.dumps({"target": self.path, "fields": {name.lower(): value for name, value in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("query", ["note=why?&symbol=BTCIDR", ""])
@pytest.mark.parametrize("language", [*SIGNING, "bash"])
def test_the_whole_query_is_signed_and_sent_whatever_is_in_it(language, query, key_file):
    command = SIGNING.get(language, ["bash", "-c", 'GERBANG_KEY=$1 GERBANG_DIALECT=$2 exec "$3" GET "$0$4"'])
    tool(command[0], "its example is NOT tested")
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def sent(dialect):
            which = str(CLIENTS / "bash" / "gerbang.sh") if language == "bash" else "GET"
            arguments = [f"http://127.0.0.1:{server.server_port}", key_file, dialect, which, f"/v1/orders?{query}"]
            done = subprocess.run([*command, *arguments], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            seen = json.loads(done.stdout)
            return seen["target"], seen["fields"]

        try:
            (target, fields), (binance, _) = sent("rfc9421"), sent("binance")
        finally:
            server.shutdown()
            thread.join()
    parameters = fields["signature-input"].removeprefix("sig=")
    base = f'"@method": GET\n"@path": /v1/orders\n"@query": ?{query}\n"@signature-params": {parameters}'
    signature = base64.b64encode(hmac.digest(SECRET.encode(), base.encode(), "sha256")).decode()
    assert (target.removesuffix("?"), fields["signature"]) == (f"/v1/orders?{query}".removesuffix("?"), f"sig=:{signature}:")
    payload, _, signature = binance.partition("?")[2].partition("&signature=")
    assert (payload.startswith(query), signature) == (True, hmac.digest(SECRET.encode(), payload.encode(), "sha256").hex())


@pytest.mark.parametrize("file", ["python/session.py", "node/session.mjs", "node/gerbang.mjs", "bash/gerbang.sh"])
def test_a_program_without_arguments_tells_which_it_takes(file):
    run_by = {".py": sys.executable, ".mjs": "node", ".sh": "bash"}[Path(file).suffix]
    done = subprocess.run([run_by, CLIENTS / file], capture_output=True, text=True)
    assert (done.returncode > 0, done.stdout) == (True, "")
    assert re.fullmatch(rf"(\w+ )?{Path(file).name} [\]\[A-Z ]+\n", done.stderr)
