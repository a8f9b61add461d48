"""What doctor makes of what a provider says it can do."""

import pytest

from admin.config import AdminSettings
from admin.identity.provider import Discovery
from deploy.doctor.peers import provider_as_configured
from gateway.keys.vault import new_entry

ISSUER = "https://login.exchange.example"


def found(published: dict[str, object], **oidc: object) -> list[tuple[str, str]]:
    settings = AdminSettings.model_validate(
        {
            "public_url": "https://keys.exchange.example",
            "stores": {"postgres": "postgresql://x@127.0.0.1/x", "redis": "redis://127.0.0.1"},
            "vault": {"keys": new_entry("k1")},
            "oidc": {"issuer": ISSUER, "audience": "gerbang", **oidc},
            "internal": {"token": "t" * 24},
        }
    )
    names = {name: frozenset(value) for name, value in published.items()}  # type: ignore[call-overload]
    discovery = Discovery(issuer=ISSUER, jwks_uri=f"{ISSUER}/jwks", **names)
    return [(finding.level, finding.about) for finding in provider_as_configured(settings, discovery)]


@pytest.mark.parametrize(
    ("published", "oidc", "findings"),
    [
        ({}, {}, []),
        ({"claims": ["email", "kyc"], "scopes": ["openid", "email"], "algorithms": ["RS256", "ES256"]}, {}, []),
        ({"claims": ["email"]}, {}, [("note", "oidc.scopes")]),
        ({"scopes": ["openid"]}, {}, [("wrong", "oidc.scopes")]),
        ({"algorithms": ["EdDSA"]}, {}, [("wrong", "oidc.algorithms")]),
        ({"algorithms": ["EdDSA"]}, {"algorithms": ["EdDSA"]}, []),
        ({}, {"client_secret": "s"}, []),
        ({}, {"client_secret": "s", "client_authentication": "body"}, [("wrong", "oidc.client_authentication")]),
        ({"client_authentication": ["client_secret_post"]}, {"client_secret": "s"}, [("wrong", "oidc.client_authentication")]),
    ],
)
def test_what_a_provider_publishes_is_held_against_what_it_is_asked_for(
    published: dict[str, object], oidc: dict[str, object], findings: list[tuple[str, str]]
) -> None:
    assert found(published, **oidc) == findings
