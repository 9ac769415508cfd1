"""Hourly quota of a caller's labels, counted in their history."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, select

from regraft.errors import OverloadedError, PreconditionError
from regraft.stores.database.tables import label_history

_PERIOD: Final = timedelta(hours=1)


def set_lately(connection: Connection, caller: str) -> int:
    """Count the labels that a caller set within the hour."""
    since = (datetime.now(UTC) - _PERIOD).isoformat(timespec="seconds")
    query = select(func.count()).where(_by(caller), label_history.c.at > since)
    return int(connection.execute(query).scalar_one())


def next_fits_s(connection: Connection, caller: str, hourly_quota: int, labels: int = 1) -> float:
    """Return the seconds until so many labels fit, 0 if now."""
    at = label_history.c.at
    newest_first = select(at).where(_by(caller)).order_by(at.desc())
    in_the_way = connection.execute(newest_first.offset(hourly_quota - labels).limit(1)).scalar_one_or_none()
    if in_the_way is None:
        return 0.0
    over = datetime.fromisoformat(in_the_way) + _PERIOD
    return max(0.0, (over - datetime.now(UTC)).total_seconds())


def check_quota(connection: Connection, caller: str, hourly_quota: int, labels: int) -> None:
    """Refuse labels beyond a caller's quota; 0 is any number.

    Raises:
        PreconditionError: so many never fit.
        OverloadedError: they do not fit now.
    """
    if not hourly_quota or not labels:
        return
    if labels > hourly_quota:
        raise PreconditionError(
            f"quota: {labels} labels at once; a caller may set {hourly_quota} within an hour (--labels-per-hour)"
        )
    if wait_s := next_fits_s(connection, caller, hourly_quota, labels):
        raise OverloadedError(quota_used_up(caller, hourly_quota, wait_s), wait_s)


def quota_used_up(caller: str, hourly_quota: int, wait_s: float) -> str:
    """Return the text of a refusal by quota."""
    return f"quota: {caller} set {hourly_quota} labels within an hour; the next one fits in {wait_s:.0f} s"


def _by(caller: str) -> ColumnElement[bool]:
    """Select a caller's labels, without those of changes of names."""
    return (label_history.c.caller == caller) & label_history.c.change.is_(None)
