"""Proxies of the environment, none before this machine."""

import os
from collections.abc import MutableMapping
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = "localhost,127.0.0.1,::1"
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS_OF_GRPC: Final = ("no_grpc_proxy", "no_proxy")
"""Variables in gRPC's order; it ignores names in capitals."""


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Except this machine from proxies, here and in children."""
    for name in _EXCEPTIONS:
        others = environment.get(name, "")
        if _LOOPBACK not in others:
            environment[name] = f"{others},{_LOOPBACK}" if others else _LOOPBACK


def proxy_of(target: str) -> str:
    """Return variable and URL of a target's proxy, or nothing.

    The order is gRPC's; the URL comes without its password.
    """
    name = next((name for name in _PROXIES if os.environ.get(name)), "")
    host = target.rpartition(":")[0].strip("[]") or target
    exceptions = next((value for name in _EXCEPTIONS_OF_GRPC if (value := os.environ.get(name))), "")
    if not name or any(host.endswith(end.strip()) for end in exceptions.split(",") if end.strip()):
        return ""
    parts = urlsplit(os.environ[name])
    return f"{name}={parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"
