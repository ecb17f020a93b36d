"""Makes docs/operate/metrics.md from the registry: ``python -m tools.metrics_doc --write``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from raftckpt.server.metrics import METRICS

__all__ = ["DOCUMENT", "rewritten"]

DOCUMENT = Path(__file__).parents[1] / "docs/operate/metrics.md"
_TABLE = re.compile(r"(<!-- table: metrics -->\n)(?:\|.*\n)*")


def rewritten(text: str) -> str:
    """Return the document with its table as it is to be."""
    lines = ["| sample | type | unit | label | |", "|---|---|---|---|---|"]
    for metric in METRICS:
        samples = ", ".join(f"`{name}`" for name in metric.samples())
        cells = (samples, metric.kind.value, metric.unit, metric.label, metric.help)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    table = "".join(f"{line}\n" for line in lines)
    return _TABLE.sub(lambda found: found[1] + table, text)


def main() -> int:
    """Write the document, or say that it is old."""
    text = DOCUMENT.read_text("utf-8")
    made = rewritten(text)
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(made, "utf-8")
    elif made != text:
        print(f"{DOCUMENT.name} is old: python -m tools.metrics_doc --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
