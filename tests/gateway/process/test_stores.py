"""What the stores tell at the start of a gateway."""

import pytest
from structlog.testing import capture_logs

from gateway.config.settings import GatewaySettings
from gateway.keys.vault import new_entry
from gateway.process.stores import Stores
from tests.support.stack import Database


@pytest.mark.parametrize("superuser", [True, False])
async def test_a_superusers_dsn_is_not_taken_silently(database: Database, redis_url: str, superuser: bool) -> None:
    dsn = database.owner_dsn if superuser else database.gateway_dsn
    settings = GatewaySettings.model_validate({"stores": {"postgres": dsn, "redis": redis_url}, "vault": {"keys": new_entry("k1")}})
    stores = await Stores.open(settings)
    with capture_logs() as logs:
        await stores.insist()
    await stores.close()
    assert [line["event"] for line in logs] == ["postgres_role_is_superuser"] * superuser
