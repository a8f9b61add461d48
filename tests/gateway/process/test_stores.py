"""What the stores tell at the start of a gateway."""

import pytest
from structlog.testing import capture_logs

from gateway.config.settings import GatewaySettings
from gateway.errors import ConfigError
from gateway.keys.vault import new_entry
from gateway.process.stores import Stores
from tests.support.stack import Database


@pytest.mark.parametrize("superuser", [True, False])
async def test_a_superusers_dsn_is_not_taken_silently(database: Database, redis_url: str, superuser: bool) -> None:
    dsn = database.owner_dsn if superuser else database.gateway_dsn
    settings = GatewaySettings.model_validate({"stores": {"postgres": dsn, "redis": redis_url}, "vault": {"keys": new_entry("k1")}})
    stores = await Stores.open(settings)
    with capture_logs() as logs:
        await stores.check()
    await stores.close()
    assert [line["event"] for line in logs] == ["postgres_role_is_superuser"] * superuser


@pytest.mark.parametrize(("user", "refused"), [("nobody:wrong-password@", True), (None, False)])
async def test_a_redis_that_is_away_is_a_warning_and_one_that_refuses_is_a_mistake(
    database: Database, redis_url: str, user: str | None, refused: bool
) -> None:
    redis = "unix:///nowhere/redis.sock" if user is None else redis_url.replace("://", f"://{user}", 1)
    settings = GatewaySettings.model_validate(
        {"stores": {"postgres": database.gateway_dsn, "redis": redis}, "vault": {"keys": new_entry("k1")}}
    )
    stores = await Stores.open(settings)
    try:
        with capture_logs() as logs:
            if refused:
                with pytest.raises(ConfigError, match="Redis refused: ") as told:
                    await stores.check()
                assert "wrong-password" not in str(told.value)
            else:
                await stores.check()
    finally:
        await stores.close()
    assert [line["event"] for line in logs] == ["starts_degraded"] * (not refused)
