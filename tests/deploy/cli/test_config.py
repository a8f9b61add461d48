"""The example and the schema that the command line prints, and completion in each shell."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from deploy.cli import main
from tests.support.system import GERBANG

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("service", ["gateway", "admin"])
def test_the_example_is_the_repositorys_own_and_trusts_nobody(service):
    result = CliRunner().invoke(main, ["config", "example", service])
    assert (result.exit_code, result.output) == (0, (ROOT / "config" / f"{service}.toml").read_text())
    assert tomllib.loads(result.output)["client_ip"]["trusted_proxies"] == []


@pytest.mark.parametrize("service", ["gateway", "admin"])
def test_the_schema_takes_the_example_and_refuses_what_check_refuses(service):
    schema = json.loads(CliRunner().invoke(main, ["config", "schema", service]).output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    example = tomllib.loads((ROOT / "config" / f"{service}.toml").read_text())
    assert [error.message for error in validator.iter_errors(example)] == []
    for spoiled in ({**example, "colour": "red"}, {**example, "limits": {"per_ip_failures": 5}}, {**example, "stores": {}}):
        assert list(validator.iter_errors(spoiled))


@pytest.mark.parametrize("command", ["schema", "example"])
def test_another_service_is_wrong_usage(command):
    assert CliRunner().invoke(main, ["config", command, "nginx"]).exit_code == 2


def completed(shell: str, words: str, **environment: str) -> str:
    variables = os.environ | {"_GERBANG_COMPLETE": f"{shell}_complete", "COMP_WORDS": words} | environment
    return subprocess.run([GERBANG], capture_output=True, text=True, env=variables, check=True).stdout


@pytest.mark.parametrize(
    ("words", "place", "wanted"),
    [
        ("gerbang ke", "1", {"keys"}),
        ("gerbang keys ", "2", {"list", "show", "revoke"}),
        ("gerbang keys list --un", "3", {"--unrestricted", "--unused-since", "--until"}),
        ("gerbang keys list --scope ", "4", {"read", "trade"}),
        ("gerbang config schema ", "3", {"gateway", "admin"}),
    ],
)
def test_words_complete(words, place, wanted):
    assert {line.partition(",")[2] for line in completed("bash", words, COMP_CWORD=place).splitlines()} == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_that_the_guide_gives_for_each_shell_prints_its_script(shell):
    line = f"_GERBANG_COMPLETE={shell}_source gerbang"
    assert line in (ROOT / "deploy" / "README.md").read_text()
    source = subprocess.run(
        [GERBANG], capture_output=True, text=True, env=os.environ | {"_GERBANG_COMPLETE": f"{shell}_source"}, check=True
    )
    assert "_GERBANG_COMPLETE" in source.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=source.stdout, text=True, check=True)
