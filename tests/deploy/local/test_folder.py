"""deploy.local.folder: one instance a folder, secrets for their owner alone, configurations that stay the user's."""

import json
import os
import stat
import subprocess
import sys
import tomllib

import pytest

from deploy.local.folder import DataFolder, Ports
from deploy.local.process import StartError
from gateway.keys.vault import Vault

STORES = {"redis": "unix:///r.sock", "postgres-gateway": "postgresql://g@/x", "postgres-admin": "postgresql://a@/x"}


@pytest.fixture
def folder(tmp_path):
    return DataFolder(tmp_path / "data")


def prepared(folder, port=8080):
    folder.hold()
    folder.write_secrets(database_exists=False, stores=STORES)
    folder.write_configurations(Ports.after(port))
    return folder


def test_the_ports_are_the_contracts():
    assert Ports.after(8080) == (8080, 8081, 8090, 8091, 8092, 8093, 8082, 8083)


def test_a_second_instance_is_refused_in_one_line_that_names_the_first(folder):
    folder.hold()
    code = f"from pathlib import Path; from deploy.local.folder import DataFolder; DataFolder(Path({str(folder.path)!r})).hold()"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.stderr.splitlines()[-1].endswith(f"is used by another gerbang up (process {os.getpid()})")


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be used: Not a directory"):
        DataFolder(tmp_path / "file" / "data").hold()


def test_a_killed_holder_is_told_from_one_that_ended(folder):
    assert folder.hold()
    os.close(folder._lock)  # noqa: SLF001  # what the kernel does for a killed process
    again = DataFolder(folder.path)
    assert not again.hold()
    again.release()
    assert DataFolder(folder.path).hold()


def test_secrets_are_for_their_owner_alone_and_are_made_once(folder):
    prepared(folder)
    vault = folder.secret("vault-keys")
    first = vault.read_text()
    Vault.parse(first)
    assert {stat.S_IMODE(path.stat().st_mode) for path in vault.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(vault.parent.stat().st_mode) == stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.write_secrets(database_exists=True, stores=STORES | {"redis": "unix:///moved.sock"})
    assert vault.read_text() == first
    assert folder.secret("redis").read_text().strip() == "unix:///moved.sock"


def test_a_lost_vault_key_is_not_replaced_by_one_that_opens_nothing(folder):
    prepared(folder)
    folder.secret("vault-keys").unlink()
    with pytest.raises(StartError, match="restore it"):
        folder.write_secrets(database_exists=True, stores=STORES)


def test_configurations_are_toml_with_every_secret_a_reference_to_a_file(folder):
    prepared(folder, 9000)
    gateway, admin = (tomllib.loads(path.read_text()) for path in (folder.gateway_config, folder.admin_config))
    assert gateway["listen"]["public"] == "127.0.0.1:9000"
    assert gateway["client_ip"]["trusted_proxies"] == []
    assert admin["oidc"]["issuer"] == "http://127.0.0.1:9011"
    for value in (gateway["stores"]["postgres"], gateway["vault"]["keys"], admin["internal"]["token"], admin["stores"]["redis"]):
        assert value.startswith(f"file:{folder.path}/secrets/")


def test_edits_are_kept_when_the_port_changes_and_the_folder_moves(folder, tmp_path):
    prepared(folder, 8080)
    edited = folder.gateway_config.read_text().replace("workers = 1", "workers = 2") + "# my own note\n"
    folder.gateway_config.write_text(edited)
    folder.release()
    folder.path.rename(tmp_path / "moved")
    moved = prepared(DataFolder(tmp_path / "moved"), 8081)
    text = moved.gateway_config.read_text()
    assert text == edited.replace(":8081", ":8082").replace(":8080", ":8081").replace(":8090", ":8091").replace(":8092", ":8093").replace(
        str(folder.path), str(moved.path)
    )
    assert "file:" + str(moved.path) in text
    assert tomllib.loads(text)["listen"] == {"public": "127.0.0.1:8081", "ops": "127.0.0.1:8082", "workers": 2, "drain_timeout_ms": 5000}


def test_configurations_are_left_alone_otherwise(folder):
    prepared(folder)
    folder.gateway_config.write_text("# all mine\n")
    folder.release()
    prepared(folder)
    assert folder.gateway_config.read_text() == "# all mine\n"


def test_a_folder_of_a_former_version_gets_the_guide_once_and_keeps_its_edits(folder):
    prepared(folder)
    for path, section in ((folder.gateway_config, "[gateway]"), (folder.admin_config, "[docs]")):
        lines = path.read_text().split("\n")
        at = lines.index(section)
        path.write_text("\n".join([*lines[:at], *lines[at + 2 :], "# costs $5"]))
    (folder.path / "state.json").write_text(json.dumps({"port": 8080, "folder": str(folder.path)}))
    before = folder.admin_config.read_text()
    folder.release()
    prepared(folder)
    gateway, admin = (tomllib.loads(path.read_text()) for path in (folder.gateway_config, folder.admin_config))
    assert gateway["gateway"] == {"docs_url": "http://localhost:8090/docs"}
    assert admin["docs"] == {"gateway_config": str(folder.gateway_config)}
    assert folder.admin_config.read_text().startswith(before)
    folder.admin_config.write_text(before)
    folder.release()
    prepared(folder, 8081)
    assert "docs" not in tomllib.loads(folder.admin_config.read_text()), "taken out again, it stays out"
