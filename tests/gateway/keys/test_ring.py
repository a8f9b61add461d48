"""A ring that opens nothing is the wrong ring; one seal that does not open concerns its key alone."""

import pytest

from gateway.errors import ConfigError
from gateway.keys import ring
from gateway.keys.vault import Vault, new_entry

OURS, OTHER = Vault.parse(new_entry("k1")), Vault.parse(new_entry("k1"))


def seals(ours: int, others: int) -> list[tuple[bytes, str]]:
    vaults = [OTHER] * others + [OURS] * ours
    return [(vault.seal(b"secret", context=f"gbk_{number}"), f"gbk_{number}") for number, vault in enumerate(vaults)]


@pytest.mark.parametrize(("ours", "others", "wrong"), [(0, 0, False), (1, 0, False), (1, 4, False), (0, 1, True), (0, 5, True)])
def test_a_ring_is_refused_when_it_opens_nothing_of_what_is_there(ours: int, others: int, wrong: bool) -> None:
    if not wrong:
        ring.check_opens(OURS, seals(ours, others), "stored secrets")
        return
    with pytest.raises(ConfigError, match=r"vault\.keys: opens none of the stored secrets"):
        ring.check_opens(OURS, seals(ours, others), "stored secrets")


def test_seals_of_another_record_do_not_open() -> None:
    (seal, _context) = seals(1, 0)[0]
    with pytest.raises(ConfigError):
        ring.check_opens(OURS, [(seal, "gbk_other")], "factors")
