"""Who runs this process, for the records."""

import getpass
import os
from collections.abc import Callable


def user_name(login: Callable[[], str] = getpass.getuser) -> str:
    """Return the user's name, or number: a container may run under one that has no name."""
    try:
        return login()
    except (KeyError, OSError):  # the former up to Python 3.12
        return f"uid {os.getuid()}"
