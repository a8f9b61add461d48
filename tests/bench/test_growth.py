"""tests.bench.growth: each part of the table measures what it says, at its smallest."""

import sys
from pathlib import Path

from tests.bench import growth
from tests.bench.contestants import of_checkout
from tests.support.lacking import needs


def test_keys_are_looked_up_and_revoked(tmp_path: Path):
    rows = growth.of_keys(tmp_path / "keys", [40], 30)
    assert [(what, of) for what, of, _figure in rows] == [
        ("cold look-ups, Redis empty", "40 keys in PostgreSQL"),
        ("memory for each key in use", "40 keys in PostgreSQL"),
        ("keys revoked in one transaction", "30"),
    ]
    assert not rows[0][2].startswith("0/s")


@needs("nginx", "wrk", "cc")
def test_routes_workers_and_time_under_load(tmp_path: Path):
    tmp_path.chmod(0o755)
    program = of_checkout(str(Path(sys.executable).with_name("gerbang")))
    with growth.gates(program, tmp_path) as place:
        assert [row[1] for row in growth.with_routes(place, 1, 1)] == ["5 routes", growth.MANY_ROUTES]
        assert len(growth.with_workers(place, 1, 1)) == 1
        ((_what, _time, told),) = growth.soak(place, 0.02, ("read", "trade"))
        assert all(float(mib) > 10 for mib in (told.split()[0], told.split()[4]))
