"""Write down what new entries of the golden books make: ``python -m tests.golden``.

Adds lines and files where there are none. What is there already is compared and never changed:
exit status 1, and nothing written, if the product no longer makes it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden.books import HERE, fill, read
from tests.golden.play import BOOKS, new_files, played


def main() -> int:
    found = {book: played(book) for book in BOOKS}
    wrong = [
        f"{book}: {entry.name}"
        for book in BOOKS
        for entry, lines in zip(read(book), found[book], strict=True)
        if entry.lines and entry.lines != lines
    ]
    with tempfile.TemporaryDirectory() as scratch:
        files = new_files(Path(scratch))
    wrong += [
        str(path.relative_to(HERE))
        for path, data in files.items()
        if path.exists() and path.read_bytes() != data
    ]
    if wrong:
        print("no longer as written, nothing was changed:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    for book in BOOKS:
        for name in fill(book, found[book])[0]:
            print(f"written: {book}: {name}")
    for path, data in files.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"written: {path.relative_to(HERE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
