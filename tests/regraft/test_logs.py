import json
import logging
import subprocess
import sys

import pytest

from regraft.logs import JsonLines, LogFormat, TextLines


def record(text: str = "said", level: int = logging.INFO, trace_id: str = "") -> logging.LogRecord:
    made = logging.LogRecord("regraft.test", level, __file__, 1, text, None, None)
    made.created = 0.25
    made.trace_id = trace_id
    return made


def failed() -> logging.LogRecord:
    made = record("it failed", logging.ERROR)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_record_for_machines_is_one_object_on_one_line() -> None:
    line = JsonLines().format(record("Möwe\nand more", trace_id="abc"))

    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "info",
        "logger": "regraft.test",
        "message": "Möwe\nand more",
        "trace_id": "abc",
    }
    assert "\n" not in line
    assert line.isascii()


def test_a_traceback_stays_within_the_object() -> None:
    line = JsonLines().format(failed())

    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


def test_a_record_for_people_ends_with_its_trace_and_a_traceback_is_below() -> None:
    assert TextLines().format(record(trace_id="abc")).endswith("INFO regraft.test: said trace=abc")
    assert TextLines().format(record()).endswith("INFO regraft.test: said")
    first, *below = TextLines().format(failed()).splitlines()
    assert first.endswith("ERROR regraft.test: it failed")
    assert below[0].startswith("Traceback")


@pytest.mark.parametrize(("form", "lines"), [("text", 2), ("json", 3)])
def test_what_is_below_the_level_is_left_out_and_warnings_are_records_for_machines(form: LogFormat, lines: int) -> None:
    program = (
        "import logging, warnings\n"
        "from regraft.logs import write_log\n"
        f"write_log({form!r}, 'warning')\n"
        "logging.info('quiet')\nlogging.warning('one')\nlogging.error('two')\n"
    ) + ("warnings.warn('three')\n" if form == "json" else "")

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    said = done.stderr.splitlines()
    assert len(said) == lines
    if form == "json":
        assert [json.loads(line)["level"] for line in said] == ["warning", "error", "warning"]
