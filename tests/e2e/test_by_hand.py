"""deploy/README.md, "By hand, on one machine": its commands install both services, and nginx with the shipped file ends TLS before them."""

import base64
import html
import json
import os
import pty
import re
import select
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.client import connect

from deploy.client import ask
from deploy.local.postgres import PostgresServer, binaries
from deploy.signing import SigningKey, log_in
from gateway.runtime import clock
from tests.support.bot import Bot
from tests.support.certificates import self_signed
from tests.support.customer import Customer
from tests.support.lacking import tool
from tests.support.ports import free_row
from tests.support.stack import sql, start_redis
from tests.support.system import GERBANG, System

ROOT = Path(__file__).parents[2]
BLOCK = re.search(r"^By hand, on one machine:\n\n```console\n(.*?)^```", (ROOT / "deploy/README.md").read_text(), re.MULTILINE | re.DOTALL)
LINES = [line.removeprefix("$ ") for line in BLOCK[1].splitlines()] if BLOCK else []
CLIENT = "127.0.0.9"
SPOOFED = {"X-Forwarded-For": "8.8.8.8", "Forwarded": "for=8.8.8.8;proto=http", "X-Real-IP": "8.8.8.8", "X-Forwarded-Proto": "http"}
PASSWORD = "correct-horse-4711"
TRUSTED = 'trusted_proxies = ["127.0.0.1/32"]'
EXAMPLES: dict[str, dict[str, str]] = {
    "gateway": {
        'public = "0.0.0.0:8080"': 'public = "127.0.0.1:{gateway}"',
        'ops = "127.0.0.1:8081"': 'ops = "127.0.0.1:{ops}"',
        '"http://127.0.0.1:8092"': '"{exchange}"',
        '# keys = "/var/lib/gerbang/assertion"': 'keys = "{assertion}"',
        "trusted_proxies = []": TRUSTED,
    },
    "admin": {
        '"https://keys.exchange.example"': '"https://localhost:{tls}"',
        'public = "0.0.0.0:8090"': 'public = "127.0.0.1:{admin}"',
        'internal = "127.0.0.1:8093"': 'internal = "127.0.0.1:{internal}"',
        '"https://login.exchange.example"': '"{identity}"',
        "trusted_proxies = []": TRUSTED,
    },
}
"""What an operator changes in the shipped examples."""


class Machine:
    """A server of the operator's: PostgreSQL that asks for passwords, Redis, and a folder for /etc/gerbang.

    :param system: has the exchange and the identity provider
    """

    def __init__(self, folder: Path, system: System, postgres: PostgresServer, redis_url: str) -> None:
        first = free_row()
        self.gateway, self.ops, self.admin, self.tls, self.internal = (f"127.0.0.1:{first + offset}" for offset in (0, 1, 10, 11, 13))
        self.port = first + 11
        self.folder = folder
        self.postgres = postgres
        self.services: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, str] = {}
        """What each line of the page printed."""
        places = {"exchange": system.exchange_url, "identity": system.identity_url, "assertion": str(system.folder / "assertion")}
        ports = {name: getattr(self, name).rpartition(":")[2] for name in ("gateway", "ops", "admin", "tls", "internal")}
        for service, changes in EXAMPLES.items():
            text = (ROOT / "config" / f"{service}.toml").read_text()
            for shown, real in changes.items():
                assert text.count(shown) == 1, shown
                text = text.replace(shown, real.format_map(places | ports))
            (folder / f"{service}.toml").write_text(text)
        self.certificate, key = self_signed(folder / "tls", "localhost", "127.0.0.1")
        self.certificate.rename(folder / "tls/fullchain.pem")
        key.rename(folder / "tls/privkey.pem")
        self.certificate = folder / "tls/fullchain.pem"
        self.environment = os.environ | {
            "PATH": f"{GERBANG.parent}:{binaries()}:{os.environ['PATH']}",
            "PGHOST": parse_qs(urlsplit(postgres.dsn()).query)["host"][0],
            "PGUSER": "postgres",
            "GERBANG_REDIS": redis_url,
            "GERBANG_INTERNAL_TOKEN": "t" * 32,
            "GERBANG_INTERNAL_URL": f"http://{self.internal}",
            "SSL_CERT_FILE": str(self.certificate),
        }
        for name, role in (("GERBANG_POSTGRES", "gerbang_gateway"), ("GERBANG_ADMIN_POSTGRES", "gerbang_admin")):
            self.environment[name] = postgres.dsn("gerbang", role).replace(role, f"{role}:{PASSWORD}", 1)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line of the page in a shell; what goes on for ever is left running."""
        line = line.replace("/etc/gerbang/", f"{self.folder}/")
        line = line.replace("postgresql://owner@127.0.0.1/gerbang", f"'{self.postgres.dsn('gerbang')}'")
        words = ["bash", "-euo", "pipefail", "-c"]
        if re.match(r"gerbang (gateway|admin) ", line):
            with (self.folder / "log").open("ab") as log:
                self.services.append(subprocess.Popen([*words, f"exec {line}"], env=self.environment, stdout=log, stderr=log))
            return subprocess.CompletedProcess(line, 0, "", "")
        if "\\password" in line:
            return with_a_terminal([*words, line], self.environment, [PASSWORD] * 4)
        done = subprocess.run([*words, line], env=self.environment, capture_output=True, text=True, timeout=60)
        if "new-key" in line:
            self.environment["GERBANG_VAULT_KEYS"] = done.stdout.strip()
        return done

    def change(self, old: str, new: str) -> None:
        """The same in both configurations, and a reload of both services."""
        for service in EXAMPLES:
            file = self.folder / f"{service}.toml"
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
        done = self.run(f"gerbang reload --ops http://{self.ops}")
        assert done.returncode == 0, done.stderr
        reloads = self.reloads()
        self.services[1].send_signal(signal.SIGHUP)
        waited(lambda: self.reloads() == reloads + 1, "the admin service has reloaded")

    def reloads(self) -> int:
        told = ask("GET", f"http://{self.internal}/metrics").content
        found = re.search(r'^gerbang_admin_reloads_total\{outcome="applied"\} (\d+)', told, re.MULTILINE)
        return int(found[1]) if found else 0


def with_a_terminal(command: list[str], environment: dict[str, str], typed: list[str]) -> subprocess.CompletedProcess[str]:
    """Run what asks for passwords: each is typed when it is asked for."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(["setsid", "--ctty", *command], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, answers = "", iter(typed)
    try:
        while select.select([ours], [], [], 30)[0]:
            said += os.read(ours, 4096).decode()
            if said.endswith(": "):
                os.write(ours, next(answers).encode() + b"\n")
    except OSError:  # on Linux: the other end is closed
        pass
    finally:
        os.close(ours)
    return subprocess.CompletedProcess(command, process.wait(30), said, "")


def waited(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return ask("GET", url).status == 200
    except Exception:  # noqa: BLE001  # not yet
        return False


@contextmanager
def nginx(machine: Machine) -> Iterator[None]:
    """nginx with the shipped file; names, ports and the certificate's folder are this test's."""
    text = (ROOT / "deploy/nginx/gerbang.conf").read_text()
    for shown, real in (
        ("127.0.0.1:8080", machine.gateway),
        ("127.0.0.1:8090", machine.admin),
        ("listen 443", f"listen {machine.tls}"),
        ("/etc/gerbang/", f"{machine.folder}/"),
        ("server_name api.example.com", "server_name 127.0.0.1"),
        ("server_name keys.example.com", "server_name localhost"),
    ):
        assert shown in text
        text = text.replace(shown, real)
    folder = machine.folder / "nginx"
    folder.mkdir()
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}"
    (folder / "nginx.conf").write_text(head + text + "\n}\n")
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def machine(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    tool("nginx", "apt-get install nginx")
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("by-hand")
        postgres = PostgresServer(folder / "postgres", durable=False)
        postgres.start()
        stack.callback(postgres.stop)
        redis = start_redis(folder / "redis")
        stack.callback(redis.stop)
        (folder / "etc").mkdir()
        made = Machine(folder / "etc", system, postgres, redis.url)
        yield made
        for service in made.services:
            service.send_signal(signal.SIGTERM)
        assert [service.wait(30) for service in made.services] == [0, 0]


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Iterator[Machine]:
    """By the page's lines alone, once there is a database and PostgreSQL wants passwords of all but the owner."""
    sql(machine.postgres, "CREATE DATABASE gerbang")
    (machine.postgres.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    sql(machine.postgres, "SELECT pg_reload_conf()")
    for line in LINES:
        done = machine.run(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        machine.said[line] = done.stdout
    waited(lambda: answers(f"http://{machine.ops}/ready") and answers(f"http://{machine.internal}/ready"), "both services are ready")
    with nginx(machine):
        waited(lambda: answers_by_tls(machine), "nginx answers")
        yield machine


def answers_by_tls(machine: Machine) -> bool:
    try:
        with Bot(f"https://{machine.tls}", tls=context(machine)) as bot:
            return bot.call("GET", "/gateway/v1/time").status == 200
    except OSError:
        return False


def context(machine: Machine) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(machine.certificate))


@pytest.fixture(scope="module")
def keys(installed: Machine, system: System) -> Iterator[Callable[..., dict[str, str]]]:
    """Makes a key of a new customer by the admin API, through nginx."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(installed.certificate))
        yield lambda **wish: Customer(f"https://localhost:{installed.port}", system.identity_url).create_key(**wish)


@pytest.fixture
def bot(installed: Machine) -> Iterator[Callable[..., Bot]]:
    """Makes bots that come from another address than nginx, through it."""
    with ExitStack() as stack:
        yield lambda key=None: stack.enter_context(Bot(f"https://{installed.tls}", key, address=CLIENT, tls=context(installed)))


def test_the_roles_have_the_passwords_that_were_typed(installed: Machine):
    assert set(sql(installed.postgres, "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname LIKE 'gerbang%'").split()) == {
        "SCRAM-SHA-256"
    }
    assert PASSWORD in installed.environment["GERBANG_POSTGRES"], "and the services came in by them"


def test_the_client_ip_is_what_nginx_saw_whatever_the_client_says(keys, bot):
    seen = bot().call("GET", "/gateway/v1/ip", headers=SPOOFED)
    assert (seen.status, seen.content) == (200, {"client_ip": CLIENT, "family": "ipv4"})
    elsewhere = keys(ip_access="whitelisted", ip_allowlist=["8.8.8.8"])
    refused = bot(elsewhere).call("GET", "/v1/wallets", headers=SPOOFED)
    assert (refused.code, refused.content["client_ip"]) == ("ip_not_allowed", CLIENT)


def test_what_a_bot_signs_reaches_the_gate_byte_for_byte(installed, keys, bot):
    trader = bot(keys())
    assert trader.call("GET", "/v1/wallets").status == 200
    order = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}
    assert trader.call("POST", "/v1/orders", order).status == 201
    assert trader.call("GET", "/v1//wallets").code == "ambiguous_path", "nginx has not merged the slashes"
    mistaken = trader.call("GET", "/v1/wallets", headers={"X_Account_Id": "other"})
    assert (mistaken.status, "x_account_id" in mistaken.content["detail"]) == (400, True), "nginx has not dropped it unseen"
    curl = ["curl", "-sS", "--cacert", installed.certificate, "-w", "%{http_version}", f"https://{installed.tls}/gateway/v1/time"]
    assert subprocess.run(curl, capture_output=True, text=True, timeout=30).stdout.endswith("}2"), "HTTP/2 as well"


def test_a_signature_over_scheme_and_authority_holds_behind_tls(installed, keys, bot):
    given = keys()
    target = f"https://{installed.tls}/v1/wallets"
    lines = {"@method": "GET", "@path": "/v1/wallets", "@scheme": "https", "@authority": installed.tls, "@target-uri": target}
    names = " ".join(f'"{name}"' for name in lines)
    parameters = f'({names});created={clock.now_ms() // 1000};keyid="{given["key_id"]}";alg="hmac-sha256"'
    base = "\n".join([*(f'"{name}": {value}' for name, value in lines.items()), f'"@signature-params": {parameters}'])
    signature = base64.b64encode(SigningKey(given["key_id"], given["secret"]).sign(base.encode())).decode()
    headers = {"Signature-Input": f"sig={parameters}", "Signature": f"sig=:{signature}:"}
    assert bot().call("GET", "/v1/wallets", headers=headers | SPOOFED).status == 200


def test_a_session_is_held_through_nginx(installed, keys):
    given = keys()
    with connect(f"wss://{installed.tls}/ws", ssl=context(installed), source_address=(CLIENT, 0), proxy=None) as socket:
        socket.send(log_in("mobee", SigningKey(given["key_id"], given["secret"]), now_ms=clock.now_ms()))
        assert json.loads(socket.recv(20))["status"] == "success"
        socket.send('{"method":"subscribe","events":["BL"]}')
        assert json.loads(socket.recv(20))["method"] == "subscribe"


def test_a_customer_logs_in_by_a_browser_and_the_audit_has_their_address(installed):
    def curl(*arguments: str) -> str:
        words = ["curl", "-fsSL", "--interface", CLIENT, "--cacert", installed.certificate, "-b", "jar", "-c", "jar", *arguments]
        done = subprocess.run(words, cwd=installed.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    page = curl(f"https://localhost:{installed.port}/login/start?return_to=/keys")
    (form, *_) = re.findall(r"<form.*?</form>", page, re.DOTALL)
    fields = {html.unescape(name): html.unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', form)}
    issuer = re.search(r'issuer = "(http[^"]+)"', (installed.folder / "admin.toml").read_text())[1]
    sent = [part for name, value in (fields | {"account": "siti"}).items() for part in ("--data-urlencode", f"{name}={value}")]
    assert "API Management" in curl(*sent, f"{issuer}/authorize")
    assert "__Host-" in (installed.folder / "jar").read_text()
    told = json.loads(installed.run("gerbang audit list --account siti --json").stdout)["events"]
    assert [(event["event"], event["client_ip"]) for event in told if event["event"] == "login"] == [("login", CLIENT)]


def test_doctor_is_content_while_nginx_is_trusted_and_tells_when_it_is_not(installed, bot):
    def examined(service: str) -> str:
        return f"gerbang doctor --config /etc/gerbang/{service}.toml"

    for service in EXAMPLES:
        said = installed.said[examined(service)]
        assert ("ok     client_ip.trusted_proxies: 127.0.0.1/32" in said, said.count("client_ip")) == (True, 1), said
    installed.change(TRUSTED, "trusted_proxies = []")
    try:
        assert bot().call("GET", "/gateway/v1/ip").content["client_ip"] == "127.0.0.1", "every customer is the proxy"
        done = installed.run(examined("admin"))
        assert done.returncode == 1
        assert "every customer appears to have its address\n       → list the proxy's address" in done.stdout, done.stdout
        done = installed.run(examined("gateway"))
        assert "note   client_ip.trusted_proxies: none" in done.stdout, done.stdout
        assert "→ behind a proxy, list its address" in done.stdout
    finally:
        installed.change("trusted_proxies = []", TRUSTED)
    assert bot().call("GET", "/gateway/v1/ip").content["client_ip"] == CLIENT
