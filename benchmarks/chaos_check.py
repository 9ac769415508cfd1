"""Checks of the notes of `benchmarks.chaos` against history, database and audit."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.chaos_callers import MOVES, OK, UNKNOWN_ENDS, Answered, Told
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.artifact import IMAGE, PROBABILITIES
from regraft.model.session import open_session
from regraft.stores.lifecycle.history import HistoryEntry
from regraft.stores.models import MODEL_FILE, ModelStore

LATE_S: Final = 2.0
"""The history tells whole seconds, of the time before the line was written."""
REFUSED_SHARE: Final = 0.01
"""Of requests, that may be refused although their callers have few in flight."""
FOLLOWS_WITHIN_S: Final = 15.0
"""The longest that a server may take to serve a champion that somebody else promoted."""


@dataclass(frozen=True)
class Line:
    """A line of the table; what broke is told by its first examples."""

    what: str
    figure: str
    broken: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True where nothing broke it."""
        return not self.broken


def right_answers(store: ModelStore, name: str, images: Sequence[bytes]) -> dict[int, tuple[tuple[str, ...], Any]]:
    """Compute labels and probabilities [N, K] of pictures from every version's file."""
    found = {}
    for version in store.versions(name):
        file = store.folder(name, version) / MODEL_FILE
        card = artifact.read(file).card
        crops = np.stack([decode_crop(image, card.image) for image in images])
        session = open_session(file.read_bytes(), provider="cpu", threads=1).session
        found[version] = card.labels, session.run([PROBABILITIES], {IMAGE: crops})[0]
    return found


def check_answers(answers: Sequence[Answered], right: Mapping[int, tuple[tuple[str, ...], Any]]) -> Line:
    """Compare every answer with what the file of its version says of the picture."""
    good = [answer for answer in answers if answer.code == OK]
    wrong = [answer for answer in good if not _is_right(answer, right)]
    return Line("wrong answers", f"{len(wrong)} of {len(good):,}", tuple(map(str, wrong)))


def _is_right(answer: Answered, right: Mapping[int, tuple[tuple[str, ...], Any]]) -> bool:
    if answer.version not in right:
        return False
    labels, probabilities = right[answer.version]
    row = probabilities[answer.image]
    return answer.label in labels and bool(
        abs(row[labels.index(answer.label)] - answer.probability) < 1e-3 and row.max() - answer.probability < 1e-3
    )


def check_classified(answers: Sequence[Answered]) -> list[Line]:
    """Count what well-behaved callers were not answered."""
    codes = Counter(answer.code for answer in answers)
    refused = codes.pop("RESOURCE_EXHAUSTED", 0)
    del codes[OK]
    failed = tuple(f"{code} {count}" for code, count in codes.most_common())
    within = (f"RESOURCE_EXHAUSTED {refused}",) if refused > REFUSED_SHARE * len(answers) else ()
    return [
        Line("failed classifications", f"{sum(codes.values())} of {len(answers):,}", failed),
        Line("classifications refused within their caller's share", f"{refused} of {len(answers):,}", within),
    ]


def check_versions(answers: Sequence[Answered], told: Sequence[Told], history: Sequence[HistoryEntry]) -> Line:
    """Compare the version of every answer with the champion of its time.

    Between a move and the next a server answers by that champion alone: from the moment that the caller was told, or,
    if somebody else moved it, after a while in which servers follow.
    """
    told_at = {note.key: note.ended_at for note in told if note.kind in MOVES and note.code == OK}
    moves = [entry for entry in history if entry.event in MOVES]
    begins = [told_at.get(entry.why, _time(entry) + FOLLOWS_WITHIN_S) for entry in moves]
    ends = [_time(entry) for entry in moves[1:]] + [float("inf")]
    good = sorted((answer for answer in answers if answer.code == OK), key=lambda answer: answer.sent_at)
    checked, wrong, number = 0, list[str](), 0
    for answer in good:
        while number < len(moves) - 1 and ends[number] <= answer.sent_at:
            number += 1
        if answer.sent_at >= begins[number] and answer.got_at <= ends[number]:
            checked += 1
            if answer.version != moves[number].version:
                wrong.append(f"version {answer.version} at {answer.sent_at:.1f} under {_shown(moves[number])}")
    return Line("answers by another version than the champion", f"{len(wrong)} of {checked:,}", tuple(wrong))


def check_moves(told: Sequence[Told], history: Sequence[HistoryEntry]) -> list[Line]:
    """Compare what callers were told of promotions and rollbacks with the history."""
    lines = defaultdict[str, list[HistoryEntry]](list)
    for entry in history:
        lines[entry.why].append(entry)
    false, late = list[str](), list[str]()
    moves = [note for note in told if note.kind in MOVES]
    for note in moves:
        found = lines[note.key]
        wanted = {OK: (1,)}.get(note.code, (0, 1) if note.code in UNKNOWN_ENDS else (0,))
        is_other = note.code == OK and note.kind == "promote" and any(each.version != note.wanted for each in found)
        if len(found) not in wanted or is_other:
            false.append(f"{note.key}: told {note.code}, {len(found)} lines in the history")
        late += [
            f"{note.key}: told {note.code}, done later" for entry in found if _time(entry) > note.ended_at + LATE_S
        ]
    codes = Counter(note.code for note in moves)
    unknown = sum(bool(lines[note.key]) for note in moves if note.code in UNKNOWN_ENDS)
    of_them = f"{len(moves)} ({_said(codes)}; of the unknown {unknown} happened)"
    return [
        Line("moves told falsely", f"{len(false)} of {of_them}", tuple(false)),
        Line("moves that took effect after their caller had gone", str(len(late)), tuple(late)),
        _check_twins(told, history),
        _check_chain(history),
    ]


def _check_twins(told: Sequence[Told], history: Sequence[HistoryEntry]) -> Line:
    """Find rollbacks that went back further than from the champion that their caller saw."""
    seen = {note.key: note.wanted for note in told if note.kind == "rollback"}
    back = [entry for entry in history if entry.why in seen]
    broken = tuple(f"{entry.why}: from {entry.previous}" for entry in back if entry.previous != seen[entry.why])
    return Line("rollbacks from another champion than the caller's", f"{len(broken)} of {len(back)}", broken)


def _check_chain(history: Sequence[HistoryEntry]) -> Line:
    """Find lines of the history that contradict the champion before them."""
    champion, published, broken = None, set[int](), list[str]()
    for entry in history:
        if entry.event == "publish":
            published.add(entry.version)
        if entry.previous != champion:
            broken.append(f"{_shown(entry)}: the champion was {champion}")
        if entry.event in MOVES:
            champion = entry.version
            if champion not in published:
                broken.append(f"{_shown(entry)}: never published")
    return Line("lines of the history that contradict each other", f"{len(broken)} of {len(history)}", tuple(broken))


def check_labels(told: Sequence[Told], kept: Mapping[str, Sequence[str]], label_of: Mapping[str, str]) -> Line:
    """Compare the notes of labels with every line of the database.

    Args:
        told: the notes.
        kept: by the number of a picture, the labels that it was ever given.
        label_of: by the same, its label.
    """
    outcomes = defaultdict[str, set[str]](set)
    for note in told:
        if note.kind == "label":
            outcomes[note.key].add(note.outcome if note.code == OK else note.code)
    false = []
    for number, said in outcomes.items():
        lines = list(kept.get(number, ()))
        is_kept = bool(said & {"ACCEPTED", "DUPLICATE"})
        wanted = (1,) if is_kept else (0, 1) if said & UNKNOWN_ENDS else (0,)
        if len(lines) not in wanted or any(line != label_of[number] for line in lines):
            false.append(f"picture {number}: told {', '.join(sorted(said))}, the database has {lines}")
    codes = Counter(note.outcome or note.code for note in told if note.kind == "label")
    return Line("labels told falsely", f"{len(false)} of {len(outcomes)} ({_said(codes)})", tuple(false))


def check_jobs(told: Sequence[Told], jobs: Mapping[str, Any], history: Sequence[HistoryEntry]) -> Line:
    """Compare the notes of retrains with jobs, by key, and the history."""
    published = Counter((entry.job, entry.event) for entry in history if entry.job)
    false = []
    notes = [note for note in told if note.kind == "retrain"]
    for note in notes:
        job = jobs.get(note.key)
        if (note.code == OK) != (job is not None) and note.code not in UNKNOWN_ENDS:
            false.append(f"{note.key}: told {note.code}, job {job}")
        elif job is not None and note.job and note.job != job.id:
            false.append(f"{note.key}: told of job {note.job}, is {job.id}")
        elif job is not None and note.outcome:
            wanted = {"SUCCEEDED": (1, 1), "REFUSED": (1, 0)}.get(note.outcome)
            is_done = published[job.id, "publish"], published[job.id, "promote"]
            if note.outcome != job.state or (wanted and is_done != wanted) or (not wanted and is_done[1]):
                false.append(f"{note.key}: told {note.outcome}, is {job.state}, published and promoted {is_done}")
    ends = Counter(note.outcome or note.code for note in notes)
    return Line("retrains told falsely", f"{len(false)} of {len(notes)} ({_said(ends)})", tuple(false))


def check_audit(log: Path, told: Sequence[Told], history: Sequence[HistoryEntry], jobs: Iterable[str]) -> Line:
    """Compare the audit's outcomes of moves and retrains with their effects."""
    effects = {entry.why for entry in history} | set(jobs)
    outcomes = defaultdict[str, list[str]](list)
    for line in audit_lines(log):
        request = line["request"]
        outcomes[request.get("why", "") or request.get("idempotency_key", "")].append(line["outcome"])
    false, count = [], 0
    for note in told:
        if note.kind == "label":
            continue
        count += len(outcomes[note.key])
        if (OK in outcomes[note.key]) != (note.key in effects):
            happened = "happened" if note.key in effects else "did not happen"
            false.append(f"{note.key}: audited as {', '.join(outcomes[note.key]) or 'nothing'}, {happened}")
    return Line("audit lines that disagree with effects", f"{len(false)} of {count}", tuple(false))


def check_reads(reads: Sequence[Told]) -> list[Line]:
    """Count failed reads by kind.

    None may fail: models need no database, and liveness nothing at all.
    """
    lines = []
    for kind in dict.fromkeys(read.kind for read in reads):
        codes = Counter(read.code for read in reads if read.kind == kind)
        count = codes.total()
        good = codes.pop(OK, 0)
        slowest_s = max(read.ended_at - read.began_at for read in reads if read.kind == kind)
        figure = f"{count - good} of {count} failed; the slowest took {slowest_s:.1f} s"
        lines.append(Line(kind, figure, tuple(f"{code} {number}" for code, number in codes.most_common())))
    return lines


def audit_lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of the audit in a log of JSON."""
    lines = (line for line in log.read_text(errors="replace").splitlines() if '"regraft.audit"' in line)
    return [json.loads(json.loads(line)["message"]) for line in lines]


def _shown(entry: HistoryEntry) -> str:
    return f"{entry.event} {entry.previous} to {entry.version} at {_time(entry):.0f} by {entry.who} ({entry.why[:40]})"


def _time(entry: HistoryEntry) -> float:
    return datetime.fromisoformat(entry.at).timestamp()


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.most_common()) or "none"
