"""A program for ``raftckpt run`` that speaks the line protocol; told what to do by its arguments.

    supervised.py FILE [WORD ...]     (WORD: hang | no-active | exit-on-active)

Appends what it is told to FILE.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    path, *words = sys.argv[1:]
    answers = int(os.environ["RAFTCKPT_ANSWER_FD"])
    with (
        open(path, "a", buffering=1) as log,
        os.fdopen(int(os.environ["RAFTCKPT_ROLE_FD"])) as roles,
    ):
        print("start", os.getpid(), os.environ["RAFTCKPT_COMPONENT"], file=log)
        os.write(answers, b"nonsense\nok 1\nalive\n")
        for line in roles:
            _, number, state, reason, epoch, revision, previous = line.split()
            print(state, reason, previous, file=log)
            assert int(epoch) > 0 or state == "UNASSIGNED"
            assert int(revision) >= 0
            if "hang" in words:
                continue
            if state == "ACTIVE" and "exit-on-active" in words:
                sys.exit(3)
            verdict = "failed" if state == "ACTIVE" and "no-active" in words else "ok"
            os.write(answers, f"{verdict} {number}\n".encode())


if __name__ == "__main__":
    main()
