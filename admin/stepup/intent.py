"""The intent that a challenge is bound to, in canonical form, so that it cannot change afterwards. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_DOMAIN = b"gerbang step-up intent 1\x00"


class Action(StrEnum):
    """The actions that need a proof."""

    CREATE_KEY = "create_key"
    DELETE_KEY = "delete_key"
    ADD_FACTOR = "add_factor"
    REMOVE_FACTOR = "remove_factor"
    RENEW_RECOVERY_CODES = "renew_recovery_codes"


@dataclass(frozen=True, slots=True)
class Intent:
    """One action with all its parameters."""

    action: Action
    members: Mapping[str, object] = field(default_factory=dict)
    """JSON values, normalized so that different spellings of one intent have equal members."""

    def digest(self) -> bytes:
        """SHA-256 of the canonical form (sorted members, no white space, UTF-8)."""
        text = json.dumps({"action": self.action, "members": self.members}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(_DOMAIN + text.encode()).digest()


def delete_key(key_id: str) -> Intent:
    return Intent(Action.DELETE_KEY, {"key_id": key_id})


def add_factor(kind: str) -> Intent:
    return Intent(Action.ADD_FACTOR, {"kind": kind})


def remove_factor(factor_id: str) -> Intent:
    return Intent(Action.REMOVE_FACTOR, {"factor_id": factor_id})


def renew_recovery_codes() -> Intent:
    return Intent(Action.RENEW_RECOVERY_CODES)
