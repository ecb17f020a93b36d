"""What a run has shown, and what was said about its survivors.

A line of the file of judgements is ``id verdict reason``; ``#`` begins a comment. What is judged is
not shown again, but counted; what no longer exists, or is caught now, is told: the file must not
outlive the code it speaks of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.runs import CAUGHT, SURVIVED, Known, Task

VERDICTS: Final = {
    "equivalent": "nothing that can be seen changes",
    "cost": "only time, memory or the number of messages changes",
    "hole": "a test is missing, and why it is still missing",
}
_COLUMNS: Final = (*CAUGHT, *SURVIVED, "judged", "not run")


class Judgement(NamedTuple):
    """What was said about one survivor."""

    verdict: str
    reason: str


def judgements(file: Path) -> dict[str, Judgement]:
    """Read the file of judgements."""
    found = {}
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], 1):
        if not line.strip() or line.startswith("#"):
            continue
        ident, verdict, reason = (*line.split(maxsplit=2), "", "")[:3]
        if verdict not in VERDICTS or not reason:
            raise SystemExit(f"{file}:{number}: not 'id {'|'.join(VERDICTS)} reason': {line}")
        found[ident] = Judgement(verdict, reason)
    return found


class Report:
    """Joins what can be changed, what is known of it and what was judged."""

    def __init__(
        self,
        tasks: Iterable[Task],
        known: Known,
        judged: dict[str, Judgement],
    ) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._verdicts = Counter[str]()
        self._judged = judged
        self._seen: dict[str, str] = {}
        self.survivors: list[tuple[Task, str]] = []
        for task in tasks:
            self._add(task, known.of(task))

    def _add(self, task: Task, entry: dict[str, str] | None) -> None:
        status = entry["status"] if entry is not None else "not run"
        self._seen[task.mutant.ident] = status
        judgement = self._judged.get(task.mutant.ident)
        if status in SURVIVED and judgement is not None:
            self._verdicts[judgement.verdict] += 1
            status = "judged"
        elif status in SURVIVED:
            self.survivors.append((task, status))
        self._counts.setdefault(task.room, Counter())[status] += 1

    def lines(self, everything: Iterable[Task]) -> Iterator[str]:
        """The report; ``everything`` is all there is to change, whatever was chosen to be shown."""
        yield f"{'room':10}{'mutants':>9}" + "".join(f"{column:>10}" for column in _COLUMNS)
        for room, counts in sorted(self._counts.items()):
            row = "".join(f"{counts[column]:>10}" for column in _COLUMNS)
            yield f"{room:10}{counts.total():>9}{row}"
        if self._verdicts:
            yield "judged: " + ", ".join(f"{n} {verdict}" for verdict, n in self._verdicts.items())
        order = sorted(self.survivors, key=lambda pair: (pair[0].mutant.path, pair[0].mutant.line))
        for task, status in order:
            yield ""
            yield from survivor(task, status)
        yield from self._stale({task.mutant.ident for task in everything})

    def _stale(self, present: set[str]) -> Iterator[str]:
        for ident, judgement in self._judged.items():
            status = self._seen.get(ident, "not run")
            if ident not in present:
                yield f"judged, but no such mutant: {ident} {judgement.verdict} {judgement.reason}"
            elif status in CAUGHT:
                yield f"judged {judgement.verdict}, but {status}: {ident} {judgement.reason}"


def survivor(task: Task, status: str) -> Iterator[str]:
    """A survivor: where, what, and its name in the file of judgements."""
    mutant = task.mutant
    nobody = " (no test runs it)" if status == "unseen" else ""
    yield f"{mutant.path}:{mutant.line} {mutant.scope or 'module'}: {mutant.operator}{nobody}"
    yield f"  - {mutant.before}"
    yield f"  + {mutant.after}"
    yield f"  {mutant.ident}"
