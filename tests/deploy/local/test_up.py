"""gerbang up: what it prints when all of it answers."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local import up


def greeting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path, folder: Path, port: int) -> list[str]:
    monkeypatch.chdir(here)
    system = SimpleNamespace(gateway_url="http://g", admin_url="http://a", mailbox_url="http://m")
    made = SimpleNamespace(path=folder, demo_key=folder / "demo-key.json", gateway_config=folder / "gateway.toml")
    up.greet(system, made, port, 1.0)  # type: ignore[arg-type]
    return [word for line in capsys.readouterr().out.splitlines() if "export " in line for word in shlex.split(line)]


def test_operators_are_told_where_the_tools_look_unless_they_look_there_anyway(monkeypatch, capsys, tmp_path):
    assert greeting(monkeypatch, capsys, tmp_path, tmp_path / ".gerbang", 8080) == []
    elsewhere = tmp_path / "some data"
    for here, folder, port in ((tmp_path, elsewhere, 8080), (tmp_path, elsewhere, 9000), (tmp_path, tmp_path / ".gerbang", 9000)):
        assert greeting(monkeypatch, capsys, here, folder, port) == [
            "export",
            f"GERBANG_INTERNAL_URL=http://127.0.0.1:{port + 13}",
            f"GERBANG_OPS_URL=http://127.0.0.1:{port + 1}",
            "export",
            f"GERBANG_INTERNAL_TOKEN_FILE={folder}/secrets/internal-token",
        ]
