"""tests.bench.scaling: each part of it ends and says what it measures, at its smallest."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.keys.vault import new_entry
from tests.bench import scaling
from tests.bench.scaling import Ground
from tests.support.stack import TEMPLATE, OwnPostgres, start_migrated, start_redis


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    server, cache = start_migrated(tmp_path / "postgres"), start_redis(tmp_path / "redis")
    yield Ground(OwnPostgres(server, TEMPLATE), cache, new_entry("k1"), tmp_path)
    cache.stop()
    server.stop()


def test_a_cold_gate_takes_from_redis_what_another_uses(ground: Ground):
    figures = scaling.summed([asyncio.run(scaling.beside(ground, 1_500))])
    assert figures["redis found"] >= 0.95 * 1_500
    assert scaling.answered_by_postgres(figures) < 0.05 * 1_500


def test_every_part_says_what_it_measured(ground: Ground, capsys: pytest.CaptureFixture[str]):
    asyncio.run(scaling.everything(ground, [1, 2], [60], seconds=1.0, uses=100, at_once=50, only=scaling.PARTS))
    told = capsys.readouterr().out.splitlines()
    rows = [line for line in told if line.split()[:2] in (["1", "60"], ["2", "60"])]
    assert len(rows) == 2
    for part in ("a cold gate beside one that uses 60 keys: 100.0% answered by Redis, 0 rows", "Redis empty, 60 keys", "60 keys revoked"):
        assert any(line.startswith(part) for line in told)
