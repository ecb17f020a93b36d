"""``python -m tests.unit.process.broken``: a replica in which every request raises."""

from __future__ import annotations

import sys
from typing import NoReturn

from raftckpt.node.early import EarlyAcceptance
from raftckpt.process.main import main


def _consider(*_: object) -> NoReturn:
    raise LookupError("planted")


if __name__ == "__main__":
    EarlyAcceptance.consider = _consider  # type: ignore[method-assign]
    sys.exit(main())
