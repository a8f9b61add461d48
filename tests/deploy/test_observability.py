"""Dashboard and alert rules speak of what the gateway really exposes, and of all of it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin.metrics import FAMILIES as ADMIN_FAMILIES
from gateway.telemetry.metrics import FAMILIES
from tests.support.lacking import tool

FOLDER = Path(__file__).parents[2] / "deploy" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
EVERY: list[Any] = [*FAMILIES.values(), *ADMIN_FAMILIES]
LABELS = {family.name: {*family.labels} for family in EVERY}
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
EXPRESSIONS = [*QUERIES, *(rule["expr"] for rule in RULES)]


def families_of(expression):
    names = set(re.findall(r"gerbang_[a-z_]+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in LABELS else name for name in names}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(expression):
    families = families_of(expression)
    assert families
    assert families <= LABELS.keys()
    labels = set().union(*(LABELS[family] for family in families)) | {"le"}
    used = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    used |= {label for selector in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=", selector)}
    assert used <= labels


def test_the_dashboard_shows_every_metric():
    assert set().union(*map(families_of, QUERIES)) == LABELS.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"page", "warning"}
    assert rule["annotations"].keys() == {"summary", "action"}
    told = {label for text in rule["annotations"].values() for label in re.findall(r"\$labels\.(\w+)", text)}
    assert told <= set().union(*(LABELS[family] for family in families_of(rule["expr"])))


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_promtool_accepts_the_rules():
    promtool = tool("promtool", "apt-get install prometheus")
    checked = subprocess.run([promtool, "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("values", "fires"), [("0x2 1x6 2x40", True), ("0x2 1x40", False)], ids=["two in seven minutes", "one"])
def test_logins_that_the_provider_refuses_rarely_are_an_alert(tmp_path, values, fires):
    (rule,) = [rule for rule in RULES if rule["alert"] == "GerbangProviderDown"]
    series = 'gerbang_admin_requests_total{port="public",outcome="identity_provider_unavailable"}'
    expected = {
        "exp_labels": rule["labels"] | {"port": "public", "outcome": "identity_provider_unavailable"},
        "exp_annotations": rule["annotations"],
    }
    test = {
        "rule_files": [str(FOLDER / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values}],
                "alert_rule_test": [{"eval_time": "25m", "alertname": rule["alert"], "exp_alerts": [expected] if fires else []}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool = tool("promtool", "apt-get install prometheus")
    checked = subprocess.run([promtool, "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
