"""What the benchmark's own tests stand on: its stores, key and upstream, once for each pytest process."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bench.contestants import Contestant, Ground
from tests.bench.gate import GATE, Variant, gates_under_test
from tests.bench.rounds import upstream
from tests.bench.session import service
from tests.support import wheel
from tests.support.ports import free_port


class Place(NamedTuple):
    """Where contestants can be started: both services that stand behind them run."""

    gate: Contestant
    ground: Ground


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("bench")
    for above in (folder, *folder.parents[:2]):  # nginx gives up its rights
        above.chmod(0o755)
    with gates_under_test(folder, {GATE: Variant([str(wheel.program("gerbang"))])}) as entered:
        ground = Ground(folder, free_port(), entered.key, free_port(), entered.redis)
        with upstream(ground), service(ground):
            yield Place(entered.gates[0], ground)
