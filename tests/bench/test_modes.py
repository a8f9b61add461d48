"""tests.bench: each part of the benchmark that needs time or load runs, at its smallest; what it measures is for a quiet machine to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.websocket.frames import TEXT, frame
from tests.bench import memory, session
from tests.bench.rounds import started
from tests.support import wheel
from tests.support.lacking import needs
from tests.support.ports import free_port

pytestmark = needs("nginx", "wrk", "cc")


def test_the_command_prints_a_row_for_each_contestant_and_writes_them_as_json(tmp_path: Path):
    smallest = ["--rounds", "1", "--seconds", "1", "--connections", "2", "--no-memory", "--no-build"]
    command = [sys.executable, "-m", "tests.bench", *smallest, "--modes", "read", "--only", "nginx plain", "--json", tmp_path / "out.json"]
    printed = subprocess.run(command, cwd=wheel.ROOT, check=True, capture_output=True, text=True).stdout
    told = json.loads((tmp_path / "out.json").read_text())
    assert [(row["mode"], row["who"]) for row in told["rows"]] == [("read", "gerbang"), ("read", "nginx plain")]
    assert all(row["rps"] > 0 and row["us"] > 0 for row in told["rows"])
    assert told["rows"][0]["gate_rps_ratio"] == 1
    assert told["gates"]["gerbang"].endswith(", compiled" if wheel.is_current() else ", interpreted")
    assert f"gerbang: {told['gates']['gerbang']}" in printed


@pytest.mark.parametrize("kind", session.KINDS)
def test_messages_of_sessions_pass_and_are_counted(place, kind):
    with started(place.gate, place.ground) as running:
        found = session.run(place.ground, running.port, kind, 1, 2)
    assert found.messages >= found.per_second > 0
    assert found.megabytes > 0


@pytest.mark.parametrize("kind", session.KINDS[:2])
def test_a_wrong_answer_ends_a_run_of_sessions_and_is_told(place, kind):
    other = place.ground._replace(service=free_port())
    with session.service(other, frame(TEXT, b"[]")), pytest.raises(SystemExit, match=r"not the expected one: \\x81\x02\[\]"):
        session.run(other, other.service, kind, 1, 2)


def test_an_order_that_is_sent_again_ends_a_run_of_sessions(place, monkeypatch):
    """So that a run which needs more orders than were signed counts no refusals."""
    monkeypatch.setattr(session, "MOST", 40)
    with started(place.gate, place.ground) as running, pytest.raises(SystemExit, match="was already accepted"):
        session.run(place.ground, running.port, "signed orders", 1, 2)


def test_memory_and_start_are_measured(place, monkeypatch):
    monkeypatch.setattr(memory, "IDLE_CONNECTIONS", 20)
    monkeypatch.setattr(memory, "CACHED_KEYS", 2_000)
    figures = memory.measure(place.gate, place.ground, wheel.program("python"))
    idle, own, crowded = (float(str(figures[name])) for name in list(figures)[1:4])
    assert 10 < own < idle <= crowded
    assert float(str(figures["… of it for each of them, KiB"])) > 0, "20 sessions"
