"""The changelog from its fragments: ``python -m tools.changelog [--write]``.

A change brings a file of its own in ``changes/``: lines as they will stand in CHANGELOG.md, the
first of each item beginning with ``* ``. Two changes at the same time then never touch the same
line. ``--write`` puts them at the end of the first section of CHANGELOG.md, oldest name first, and
removes the files; without it they are shown, or what is wrong with them.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["collected", "fragments", "main", "wrong"]

ROOT = Path(__file__).parents[1]


def fragments(root: Path = ROOT) -> list[Path]:
    """Files of ``changes/``, by name; its README says what they are."""
    return sorted(path for path in (root / "changes").glob("*.md") if path.name != "README.md")


def wrong(text: str) -> str:
    """What keeps a fragment out of the changelog; empty if nothing does."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("* "):
        return "its first line does not begin with '* '"
    for line in lines:
        if not line.startswith(("* ", "  ")) or not line.strip():
            return f"neither an item ('* ...') nor indented by two: {line!r}"
    return ""


def collected(changelog: str, items: list[str]) -> str:
    """The changelog with the items at the end of its first section."""
    head, mark, rest = changelog.partition("\n## ")
    section, next_mark, older = rest.partition("\n## ")
    return (
        head
        + mark
        + "\n".join([section.rstrip("\n"), *(item.rstrip("\n") for item in items)])
        + ("\n" + next_mark if next_mark else "\n")
        + older
    )


def main(root: Path = ROOT) -> int:
    """Show or write; returns the exit code."""
    found = fragments(root)
    texts = [path.read_text("utf-8") for path in found]
    status = 0
    for path, text in zip(found, texts, strict=True):
        if why := wrong(text):
            print(f"{path.relative_to(root)}: {why}", file=sys.stderr)
            status = 1
    if status == 0 and "--write" in sys.argv[1:]:
        changelog = root / "CHANGELOG.md"
        changelog.write_text(collected(changelog.read_text("utf-8"), texts), "utf-8")
        for path in found:
            path.unlink()
    elif status == 0:
        sys.stdout.write("".join(texts))
    return status


if __name__ == "__main__":
    sys.exit(main())
