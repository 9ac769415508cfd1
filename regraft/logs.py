"""Logs on standard error, as text or as JSON lines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

FORMATS: Final[tuple[LogFormat, ...]] = ("text", "json")
LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error")


def write_log(form: LogFormat, level: LogLevel, *filters: logging.Filter) -> None:
    """Write records from ``level`` on; filters may add a ``trace_id``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for each in filters:
        handler.addFilter(each)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(form == "json")  # which Python would print as text


class JsonLines(logging.Formatter):
    """A formatter of JSON lines, with times in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line; empty fields are left out."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "trace_id": _trace_id(record),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in fields.items() if value or name == "message"})


class TextLines(logging.Formatter):
    """A formatter of text lines, with the trace at their end."""

    def __init__(self) -> None:
        """Begin lines with time and level."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        """Return the line, without a traceback."""
        trace_id = _trace_id(record)
        return super().formatMessage(record) + (f" trace={trace_id}" if trace_id else "")


def _trace_id(record: logging.LogRecord) -> str:
    return str(getattr(record, "trace_id", ""))
