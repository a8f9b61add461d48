"""README.md: what it tells somebody to type works, and what it shows is what they see."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.system import GERBANG

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def block(language: str, words: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and words in text]
    return found


@pytest.fixture
def here(system, tmp_path):
    """A folder that looks like a clone in which ``deploy/up`` runs, and how its README is to be read there."""
    (tmp_path / ".gerbang").symlink_to(system.folder)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(GERBANG.parent)
    (tmp_path / "deploy").symlink_to(Path(__file__).parents[2] / "deploy")

    def adapted(text: str) -> str:
        for offset in (0, 10, 11, 12):
            text = text.replace(f"127.0.0.1:{8080 + offset}", f"127.0.0.1:{system.port + offset}")
        return text.replace('"siti"', f'"siti-{system.port}"').replace(" siti", f" siti-{system.port}")

    environment = system.environment | {"GERBANG_INTERNAL_URL": system.internal_url, "PATH": f"{GERBANG.parent}:{os.environ['PATH']}"}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    run.adapted = adapted  # type: ignore[attr-defined]
    return run


def test_signing_in_python(here):
    done = here([sys.executable, "-c", here.adapted(block("python", "X-Request-Signature"))])
    assert '"currency": "IDR"' in done.stdout, done.stderr


def test_signing_in_a_shell(here):
    done = here(["bash", "-euc", here.adapted(block("bash", "gerbang.sh"))])
    assert '"currency": "IDR"' in done.stdout, done.stderr


def shape(text: str) -> str:
    """What is the same each time: ids, numbers and the secret differ."""
    text = re.sub(r"(gbk|gbs)_[0-9A-Za-z…]+", r"\1", text)
    text = re.sub(r"(version|request_id\":) ?\"?[0-9a-f]+\"?", r"\1", text)
    return re.sub(r"siti-[0-9]+", "siti", re.sub(r"(?<![0-9A-Za-z])-?[0-9]+(\.[0-9]+)?|[0-9]+(\.[0-9]+)?", "0", text))


def test_creating_a_key_and_then_operating(here, system):
    done = here([sys.executable, "-c", here.adapted(block("python", "step-up"))])
    assert done.returncode == 0, done.stderr
    assert shape(done.stdout) == shape(block("json", '"secret"'))
    transcript(here, block("console", "accounts freeze"), system)


@pytest.mark.parametrize("words", ["bid", "missing_credentials"])
def test_calls_show_what_the_readme_shows(here, system, words):
    transcript(here, block("console", words), system)


def transcript(here, text: str, system) -> None:
    """Run each command of a console block and compare what it prints."""
    order: str | None = None
    steps = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    for step in steps:
        command = re.match(r"(?:.*\\\n)*.*\n", step)[0]
        if "DELETE" in command:
            command = command.replace("/orders/1 ", f"/orders/{order} ")
        command = here.adapted(command).replace("gerbang reload", f"gerbang reload --ops {system.ops_url}")
        done = here(["bash", "-c", command])
        order = next(iter(re.findall(r'"id": "(\d+)"', done.stdout)), None)
        assert shape(done.stdout + done.stderr).rstrip() == shape(step[len(re.match(r"(?:.*\\\n)*.*\n", step)[0]) :]).rstrip()


def test_the_first_output_is_what_gerbang_up_prints(system):
    system.says("  export GERBANG_INTERNAL_TOKEN_FILE")  # the last line

    def plain(text: str, folder: str, port: int) -> list[str]:
        """Lines without what differs between machines: the folder, the program's place, ports and seconds."""
        text = re.sub(r"\S*bin/gerbang ", "gerbang ", text.replace(folder, ".gerbang"))
        text = re.sub(r"(127\.0\.0\.1|localhost):(\d+)", lambda found: f"{found[1]}:{int(found[2]) - port}", text)
        return [line.rstrip() for line in re.sub(r"in [\d.]+ s;", "in 1 s;", text).splitlines() if line.strip()]

    shown = "ready: " + block("console", "$ deploy/up").split("ready: ")[1]
    assert plain(shown, "/home/siti/gerbang/.gerbang", 8080) == plain("\n".join(system.output), str(system.folder), system.port)


def test_the_files_that_the_readme_names_are_there():
    named = re.findall(r"`((?:deploy|tests|config|gateway|admin)/[\w./]*)`", README.read_text())
    assert named
    assert [name for name in named if not (README.parent / name).exists()] == []


def test_a_customer_logs_in_with_a_browser_and_finds_the_page_of_keys(system):
    admin = system.admin_url.replace("127.0.0.1", "localhost")
    with httpx.Client(trust_env=False, timeout=20) as browser:
        start = browser.get(f"{admin}/login/start")
        form = browser.get(start.headers["Location"])
        fields = {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form.text.split("<button")[0])}
        answer = browser.post(f"{system.identity_url}/authorize", data=fields | {"account": "verified"})
        back = browser.get(answer.headers["Location"], headers=cookies(start))
        page = browser.get(f"{admin}/keys", headers=cookies(back))
        assert (page.status_code, "gbk_" in page.text or "<h1" in page.text) == (200, True), page.text


def cookies(response) -> dict[str, str]:
    """What a browser sends back: secure cookies too, for localhost is trusted over http (W3C Secure Contexts §3.1)."""
    return {"Cookie": "; ".join(each.split(";")[0] for each in response.headers.get_list("Set-Cookie"))}
