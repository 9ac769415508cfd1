"""Bearer tokens, and the addresses that need none: those of this machine."""

import ipaddress
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


def is_loopback(address: str) -> bool:
    """Return whether HOST:PORT, or a Unix socket, stays on this machine."""
    if is_socket(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_socket(address: str) -> bool:
    """Return whether an address is ``unix:PATH``."""
    return address.startswith("unix:")
