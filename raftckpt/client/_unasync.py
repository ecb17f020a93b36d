"""Makes the blocking face from the asyncio face: ``python raftckpt/client/_unasync.py``.

A unit test checks that the file in the tree is what this makes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["blocking_face"]

_HERE = Path(__file__).parent
_RULES = (
    (r'\A"""(?:.|\n)*?"""\n', '"""The blocking face, thread-safe. Made from ``aio.py`` by '
     '``_unasync.py``: do not edit."""\n'),
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
    (r"\basync with\b", "with"),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"aio_driver", "sync_driver"),
    (r"aio_extras", "sync_extras"),
    (r"aio_tracking", "sync_tracking"),
)  # fmt: skip


def blocking_face(source: str) -> str:
    """Return the source of the blocking face for that of the asyncio face."""
    for pattern, replacement in _RULES:
        source = re.sub(pattern, replacement, source)
    return source


def main() -> None:
    """Write ``sync.py``."""
    target = _HERE / "sync.py"
    target.write_text(blocking_face((_HERE / "aio.py").read_text("utf-8")), "utf-8")
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, str(target)], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
