"""A worker's process: what each of them pays for in memory, and for looking through it."""

import subprocess
import sys

UNUSED = {"aiohttp", "alembic", "click", "greenlet", "jinja2", "joserfc", "prometheus_client", "pydantic", "sqlalchemy", "webauthn"}
"""Packages of the parent, of the admin service, or of the command line: megabytes each, in every worker."""


def test_a_worker_imports_nothing_that_it_does_not_use():
    script = "import sys, gateway.process.worker; print(*{name.partition('.')[0] for name, found in sys.modules.items() if found})"
    imported = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert UNUSED & set(imported) == set()


def test_what_is_kept_out_while_it_starts_can_be_imported_once_it_runs():
    script = """
import sys
import gateway.process.worker
from gateway.process import lean
assert not {name for name in lean.UNUSED if sys.modules[name]}
lean.allow_imports()
import greenlet
import opentelemetry.sdk.metrics
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_no_collection_but_a_full_one_looks_through_thousands_of_new_objects():
    script = """
import gc, sys
from gateway.process.worker import settle_memory
settle_memory()
young, most, keys = gc.get_threshold()[0], 0, []
for number in range(100_000):
    keys.append([number])
    if number % 100 == 0:
        most = max(most, len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1)))
assert young <= most and (most <= 5 * young or sys.version_info >= (3, 14)), most  # old objects are looked through in increments there
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_keys_that_come_into_memory_are_not_looked_through_again_and_again():
    script = """
import gc
from gateway.process.worker import settle_memory
settle_memory()
before = gc.get_stats()[2]["collections"]
keys = [[number] for number in range(500_000)]
assert sum(generation["collections"] for generation in gc.get_stats()[:2]) > 10
assert gc.get_stats()[2]["collections"] == before, gc.get_stats()
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
