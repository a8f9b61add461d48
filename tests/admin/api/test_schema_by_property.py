"""Hundreds of requests made from ``/openapi.json``: nothing breaks, and nothing is answered that it does not name."""

import asyncio
import sys
from pathlib import Path

from tests.support.admin import running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.stack import Database

# 422 also for what the schema allows: that an address is public, or that a label can be read, it cannot say.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 405, 409, 422, 429]
"""
PLENTY = {"per_account": "1000000/second", "per_ip_failures": "1000000/second"}


async def test_schemathesis_finds_no_fault(issuer: Issuer, database: Database, redis_url: str, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, limits=PLENTY), issuer) as service:
        customer = service.customer()
        await customer.enrol()
        arguments = ["--config-file", str(config), "run", f"{service.public}/openapi.json", "--url", service.public]
        arguments += [
            "-H",
            f"Authorization: {customer.headers['Authorization']}",
            "--max-examples",
            "8",
            "--seed",
            "20261124",
            "--no-color",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from schemathesis.cli import schemathesis; schemathesis()",
            *arguments,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            told, _ = await asyncio.wait_for(process.communicate(), 240)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, told.decode()[-8_000:]
