import re
from collections.abc import Iterator

import pytest

from benchmarks.gate import COLUMNS, SCENARIOS, main


def cells(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_short_form_plays_every_scenario_and_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--short"])

    head, _, *rows = cells(capsys.readouterr().out)
    assert head == ["sent", *COLUMNS]
    assert len(rows) == len(SCENARIOS) + 1, "one each, and poison beside the run without any"
    for sent, _, blessed, of_good, *_ in rows:
        assert re.fullmatch(r"(\d+) of \1", of_good), (
            f"{sent}: a challenger that is as good on clean pictures is refused"
        )
        assert blessed != "0 of 0"
    sent, *_, caught, right = rows[-1]
    assert float(re.findall(r"([-\d.]+) points less", sent)[0]) <= 5, sent
    assert caught.split(" of ")[0] != "0"
    assert int(right) <= 3


@pytest.mark.parametrize("words", [[], ["--short", "poisn"]])
def test_what_it_does_not_know_is_refused_with_what_it_does(words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"usage: .*\|poison\]"):
        main(words)
