"""Bearer tokens, and addresses that need none."""

import ipaddress
import secrets
from hashlib import sha256
from typing import Final

ROLES: Final = ("classify", "label", "operate")
"""Least first; `serving.rpc.security.roles` has the RPCs of each."""

_PREFIX: Final = "regraft_"
"""Recognised by scanners of repositories and logs, where a token got lost."""


def new_token() -> str:
    """Return a token of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the SHA-256 (hex) of a token; its randomness needs no salt."""
    return sha256(token.encode()).hexdigest()


def is_loopback(address: str) -> bool:
    """Tell whether an address, HOST:PORT or a Unix socket, is this machine's."""
    if is_socket(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_socket(address: str) -> bool:
    """Tell whether an address is ``unix:PATH``."""
    return address.startswith("unix:")
