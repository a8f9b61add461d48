"""An operator at work on a running system: reload, another gateway from a copy, a second instance kept out."""

import signal
import subprocess
import time

import pytest

from deploy.client import ask
from tests.support.bot import Bot
from tests.support.ports import free_row
from tests.support.system import GERBANG


def gerbang(system, *arguments):
    return subprocess.run([GERBANG, *arguments], capture_output=True, text=True, env=system.environment, timeout=60)


def test_a_second_instance_on_the_folder_is_refused_in_one_line(system, demo_bot):
    done = gerbang(system, "up", "--data", system.folder, "--port", str(free_row()))
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "is used by another gerbang up (process " in line) == (1, True), line
    assert demo_bot.call("GET", "/v1/wallets").status == 200


@pytest.fixture
def config(system):
    """The running gateway's configuration; put back after the test."""
    path = system.folder / "gateway.toml"
    before = path.read_text()
    yield path
    path.write_text(before)
    assert gerbang(system, "reload", "--ops", system.ops_url).returncode == 0


def test_a_reload_changes_the_running_gateway_and_refuses_a_bad_file_whole(system, config, demo_bot):
    good = config.read_text()
    assert demo_bot.call("GET", "/v1/wallets").status == 200
    config.write_text(good.replace("GET /v1/wallets", "GET /v1/purses"))
    done = gerbang(system, "reload", "--ops", system.ops_url)
    assert (done.returncode, done.stdout.startswith("applied: version ")) == (0, True), done
    assert demo_bot.call("GET", "/v1/wallets").code == "no_route"
    config.write_text(good.replace('scope = "read"', 'scope = "reed"'))
    done = gerbang(system, "reload", "--ops", system.ops_url)
    assert (done.returncode, "routes[4].scope: " in done.stderr) == (1, True), done
    assert demo_bot.call("GET", "/v1/wallets").code == "no_route"


def test_a_tier_set_by_the_back_office_is_in_force_within_a_second(system, config, customer_of, bot_of, record_property):
    config.write_text(config.read_text() + '\n[tiers.pro]\nper_key = "7000/minute"\n')
    assert gerbang(system, "reload", "--ops", system.ops_url).returncode == 0
    customer = customer_of()
    bot = bot_of(customer.create_key())
    path = f"{system.internal_url}/internal/v1/accounts/{customer.account}"
    token = (system.folder / "secrets/internal-token").read_text().strip()
    delays = []
    usual = bot.call("GET", "/v1/wallets").headers["ratelimit-limit"]
    for tier, limit in (("pro", "7000"), (None, usual), ("pro", "7000")):
        assert ask("PUT", path, body={"tier": tier}, token=token).status == 200
        answered = time.perf_counter()
        while bot.call("GET", "/v1/wallets").headers["ratelimit-limit"] != limit:
            assert time.perf_counter() - answered < 20
        delays.append(1_000 * (time.perf_counter() - answered))
    record_property("measured", f"tier set, ms to the first answer by its limits: {', '.join(f'{delay:.1f}' for delay in delays)}")
    assert max(delays) <= 1_000


def test_another_gateway_runs_from_a_copy_of_the_configuration_and_believes_the_proxy_it_is_told_to(system, customer_of, tmp_path):
    key = customer_of().create_key(ip_access="whitelisted", ip_allowlist=["8.8.8.8"])
    other = free_row()
    text = (system.folder / "gateway.toml").read_text()
    for offset in (0, 1):
        text = text.replace(f"127.0.0.1:{system.port + offset}", f"127.0.0.1:{other + offset}")
    (tmp_path / "copy.toml").write_text(text.replace("trusted_proxies = []", 'trusted_proxies = ["127.0.0.1/32"]'))
    command = [GERBANG, "gateway", "--config", tmp_path / "copy.toml"]
    gateway = subprocess.Popen(command, env=system.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answer = first_answer(f"http://127.0.0.1:{other}", key, "8.8.8.8")
        assert answer.status == 200
        assert first_answer(f"http://127.0.0.1:{other}", key, "8.8.4.4").code == "ip_not_allowed"
    finally:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(60) == 0


def first_answer(url, key, forwarded_for):
    """What the gateway says once it listens and knows its upstream."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with Bot(url, key) as bot:
                answer = bot.call("GET", "/v1/wallets", headers={"X-Forwarded-For": forwarded_for})
        except ConnectionError:
            answer = None
        if answer is not None and answer.status != 503:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)
