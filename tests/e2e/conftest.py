"""One real ``gerbang up`` for all end-to-end tests of one pytest process."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bot import Bot
from tests.support.customer import Customer
from tests.support.system import GERBANG, System, free_port

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("e2e") / "data", free_port())
    running.start()
    yield running
    running.end()
    assert running.processes() == {}


@pytest.fixture(scope="session")
def customer_of(system: System) -> Callable[..., Customer]:
    """Makes a customer of the running system: ``customer_of()``, ``customer_of("unverified", enrol=False)``."""
    return lambda account=None, **how: Customer(system.admin_url, system.identity_url, account, **how)


@pytest.fixture
def bot_of(system: System) -> Iterator[Callable[..., Bot]]:
    """Makes a bot with its own connection: ``bot_of(key)``; closed after the test."""
    bots: list[Bot] = []

    def make(key=None, **how) -> Bot:
        bots.append(Bot(system.gateway_url, key, **how))
        return bots[-1]

    yield make
    for bot in bots:
        bot.connection.close()


@pytest.fixture
def demo_bot(system: System, bot_of: Callable[..., Bot]) -> Bot:
    return bot_of(system.demo_key)


@pytest.fixture(scope="session")
def operator(system: System) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line as an operator of the running system uses it."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        where = {"GERBANG_INTERNAL_URL": system.internal_url, "GERBANG_INTERNAL_TOKEN_FILE": str(system.folder / "secrets/internal-token")}
        return subprocess.run([GERBANG, *arguments], capture_output=True, text=True, env=system.environment | where | environment)

    return run
