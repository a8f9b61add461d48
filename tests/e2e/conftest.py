"""One real ``gerbang up`` for all end-to-end tests of one pytest process."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import guide
from tests.support.bot import Bot
from tests.support.customer import Customer
from tests.support.lacking import tool
from tests.support.ports import free_row
from tests.support.system import GERBANG, System

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("e2e") / "data", free_row())
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


@pytest.fixture
def key_of(customer_of: Callable[..., Customer]) -> Callable[..., dict[str, str]]:
    """Makes a key of a new customer, as other people's clients want it: ``key_of()``, ``key_of("ed25519", scopes=["read"])``."""
    return lambda algorithm="hmac-sha256", **wish: customer_of().create_key_of(algorithm, **wish)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of the npm packages that are pinned in ``node/package-lock.json``, installed when they are not there."""
    tool("npm", "apt-get install npm")
    folder = HERE / "node"
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def node_program(node_modules: Path) -> Callable[..., list]:
    """Runs the guide's JavaScript settings of a client with more lines; returns what those ``say``."""

    def run(heading: str, names: dict[str, str], lines: str) -> list:
        constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in names.items())
        say = "const say = (value) => console.log('SAID ' + JSON.stringify(value));\n"
        program = constants + guide.block(heading) + say + lines + "\nprocess.exit(0);\n"
        # Imports may stand anywhere at the top level; they are resolved from the working directory.
        command = ["node", "--input-type=module", "-"]
        done = subprocess.run(command, input=program, cwd=node_modules, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("SAID ")]

    return run
