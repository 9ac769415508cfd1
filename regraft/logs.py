"""The log of a process on standard error: one line a record for people, or one JSON object for machines."""

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
    """Write every record from ``level`` on in a form; ``filters`` may give it a ``trace_id``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for each in filters:
        handler.addFilter(each)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(form == "json")  # which Python would print as text


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time (UTC, ISO 8601), level, logger, message, trace_id and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; fields that have nothing to say are left out."""
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
    """Formats a record as a line of text, with the trace at its end and a traceback below."""

    def __init__(self) -> None:
        """Begin each line with the time and the level."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        """Return the line without what is below it."""
        trace_id = _trace_id(record)
        return super().formatMessage(record) + (f" trace={trace_id}" if trace_id else "")


def _trace_id(record: logging.LogRecord) -> str:
    return str(getattr(record, "trace_id", ""))
