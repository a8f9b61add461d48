"""A running admin service per test, on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.admin import Customer, Service, running_service, settings_for
from tests.support.issuer import Issuer, running_issuer
from tests.support.stack import Database


@pytest.fixture(autouse=True)
def patience(patient_with_redis: None) -> None:
    """For every service that runs in this process."""


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        yield issuer


@pytest.fixture
async def service(issuer: Issuer, database: Database, redis_url: str) -> AsyncIterator[Service]:
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url), issuer) as service:
        yield service


@pytest.fixture
async def alice(service: Service) -> Customer:
    """A verified customer with an authenticator app."""
    customer = service.customer("alice")
    await customer.enrol()
    return customer
