"""Makes docs/operate/metrics.md from the registry: ``python -m tools.metrics_doc --write``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from raftckpt.server.metrics import METRICS
from tools.documents import keep

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


if __name__ == "__main__":
    sys.exit(keep(DOCUMENT, rewritten, "tools.metrics_doc"))
