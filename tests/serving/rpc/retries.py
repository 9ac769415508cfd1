"""gRPC's own retry policy, as clients set it up."""

import json


def retrying(code: str, *, first_s: float, most_s: float) -> list[tuple[str, str]]:
    """Return the options of a channel that calls again after ``code``.

    Args:
        code: the name of the status.
        first_s: the pause before the second attempt; each further one is twice as long.
        most_s: the longest pause.
    """
    policy = {
        "maxAttempts": 5,
        "initialBackoff": f"{first_s}s",
        "maxBackoff": f"{most_s}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": [code],
    }
    return [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]}))]
