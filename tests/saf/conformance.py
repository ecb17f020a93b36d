"""Writes docs/reference/conformance.md from the tests: ``python -m tests.saf.conformance``."""

from __future__ import annotations

import importlib
from pathlib import Path

from raftckpt.errors import SaAisError

from .rules import PROOFS
from .table import CALLS, Call, rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "conformance.md"
MODULES = (
    "test_life",
    "test_content",
    "test_faults",
    "test_consumption",
    "test_tracking",
    "test_habits",
    "test_credentials",
    "test_csa103",
    "test_python_face",
)
TABLE = "tests/saf/test_table.py"

HEAD = """\
# Conformance

Which test proves which rule of which call of `raftckpt.saf`. Made from the tests by
`python -m tests.saf.conformance`; a test fails when it is out of date. What the calls are and where
they differ from C: [saf.md](../guides/saf.md).

The tables list what makes a call fail, *in the order in which it is checked*: {pairs} further rows
break two rules at once and expect the code of the one that is checked first. Every row is run
against a real cluster, once as a client of version B.01 and once of B.02: {all} rows in all. Ids
of the rows: `tests/saf/test_table.py::test_row[CALL-VERSION-ROW]`. Calls of B.02.03 are made by
clients of that version wherever a row says nothing else.

| call | rules of its table | rows with them | rules with a test of their own |
|---|---|---|---|
{counts}
"""


def document() -> str:
    """Return the document."""
    for module in MODULES:
        importlib.import_module(f"tests.saf.{module}")
    every = list(rows())
    pairs = sum(len(row.breaches) == 2 for row in every)
    named = {call.name for call in CALLS}
    others = sorted({proof.call for proof in PROOFS} - named, key=str.lower)
    rules = {call.name: len(call.breaches) + 1 for call in CALLS}
    counts = [
        f"| `{name}` | {rules.get(name, 0)} | {sum(row.call.name == name for row in every)} | "
        f"{len({proof.rule for proof in PROOFS if proof.call == name})} |"
        for name in (*rules, *others)
    ]
    parts = [HEAD.format(pairs=pairs, all=len(every), counts="\n".join(counts))]
    parts += map(_table, CALLS)
    parts += [f"## {name}\n{_proofs(name)}" for name in others]
    return "\n".join(parts)


def _table(call: Call) -> str:
    lines = [
        f"## {call.name}\n",
        "| rule | B.01 | B.02 | row |",
        "|---|---|---|---|",
        "| nothing is wrong | OK | OK | `well` |",
    ]
    for breach in call.breaches:
        code = SaAisError(breach.code).name
        codes = [code if breach.version in ("", version) else "" for version in ("B.01", "B.02")]
        row = f"{breach.on}:{breach.rule}".replace(" ", "_").replace("|", "\\|")
        rule = breach.rule.replace("|", "\\|")
        lines.append(f"| {rule} | {codes[0]} | {codes[1]} | `{row}` |")
    return "\n".join(lines) + "\n" + _proofs(call.name)


def _proofs(name: str) -> str:
    proofs = sorted((proof.rule, proof.test) for proof in PROOFS if proof.call == name)
    if not proofs:
        return ""
    lines = ["", "| rule | test |", "|---|---|"]
    lines += [f"| {rule} | `{test}` |" for rule, test in dict.fromkeys(proofs)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
