"""What the tests of processes share."""

import pytest


@pytest.fixture(autouse=True)
def patience(patient_with_redis):
    """For the stores that are opened in this process. A gateway's own processes keep their limits."""
