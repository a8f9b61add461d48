"""A worker's process: what each of them pays for in memory."""

import subprocess
import sys

UNUSED = {"aiohttp", "alembic", "click", "jinja2", "joserfc", "prometheus_client", "sqlalchemy", "webauthn"}
"""Packages of the parent, of the admin service, or of the command line: megabytes each, in every worker."""


def test_a_worker_imports_nothing_that_it_does_not_use():
    script = "import sys, gateway.process.worker; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert UNUSED & set(imported) == set()
