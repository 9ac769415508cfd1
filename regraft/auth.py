"""Bearer tokens: how one is made, and how a file of callers knows it without having it."""

import secrets
from hashlib import sha256
from typing import Final

ROLES: Final = ("classify", "label", "operate")
"""What a caller may do, least first; `serving.rpc.security.roles` says which RPCs that means."""

_PREFIX: Final = "regraft_"
"""By which scanners of repositories and logs recognise a token that got lost."""


def new_token() -> str:
    """Return a token of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the SHA-256 (hex) by which a file knows a token; so many random bits need neither salt nor slowness."""
    return sha256(token.encode()).hexdigest()
