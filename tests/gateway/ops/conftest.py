"""A gateway that is asked for decisions."""

import pytest

from tests.support.decisions import ROUTES, SESSION, STREAM, TRUSTED
from tests.support.running import running


@pytest.fixture
def write(write_configuration):
    """Writes the configuration and returns its path."""
    return lambda more=TRUSTED: write_configuration(routes=ROUTES, more=more, tail=STREAM + SESSION)


@pytest.fixture
async def gate(write):
    async with running(write()) as gateway:
        yield gateway
