"""Count lines of code per room: ``python -m tools.lines``.

Lines of raftckpt/ and cli/ that hold code: no blank lines, comments or docstrings (texts that stand
alone as a statement), and no files that are made from others.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

from tools.faces import FACES

ROOT = Path(__file__).parent.parent
ROOTS = ("raftckpt", "cli")
GENERATED = {face.target for face in FACES}
"""Made by tools/faces.py."""
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """Lines of a module that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def room_of(path: str) -> str:
    """First folder, or the file itself where there is none."""
    parts = path.split("/")
    return "/".join(parts[:2])


def counted(root: Path = ROOT) -> Counter[str]:
    """Lines of code by room."""
    rooms: Counter[str] = Counter()
    for top in ROOTS:
        for file in sorted((root / top).rglob("*.py")):
            path = str(file.relative_to(root))
            if path not in GENERATED:
                rooms[room_of(path)] += code_lines(file.read_text("utf-8"))
    return rooms


def main() -> None:
    """Print the rooms, the largest first, and the total."""
    rooms = counted()
    for room, lines in rooms.most_common():
        sys.stdout.write(f"{lines:7} {room}\n")
    sys.stdout.write(f"{rooms.total():7} in all\n")


if __name__ == "__main__":
    main()
