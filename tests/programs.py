"""Programs beside the replicas of a ``LocalCluster``: commands, components, clients, as processes.

The one harness of these: what a program writes is kept line by line, what it is told goes to its
standard input, and whoever waits for it has a deadline and shows what it said.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Self, TypeVar

from tests.waiting import PATIENCE, until

_T = TypeVar("_T")


class Program:
    """A process that runs until :meth:`end`, or until it ends by itself."""

    def __init__(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.lines: list[str] = []
        """Of its standard output, without their ends."""
        self.errors: list[str] = []
        """Of its standard error."""
        self._expected = 0
        self._readers = [
            Thread(target=_keep, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    # --- what it says -------------------------------------------------------------------------

    def until(self, condition: Callable[[], _T], what: str) -> _T:
        """Wait for something that does not happen any more when the program has ended."""
        found: list[_T] = []

        def look() -> bool:
            ended = not self.running
            if ended:
                self.wait()  # its last lines count
            value = condition()
            if value:
                found.append(value)
            return bool(value) or ended

        try:
            until(look, what)
            assert found, f"it ended with {self.process.returncode}, and never: {what}"
        except AssertionError as error:
            error.add_note("\n".join([*self.lines[-15:], *self.errors[-15:]]))
            raise
        return found[0]

    def until_said(self, text: str) -> None:
        """Wait for a line, of output or errors, that holds a text."""
        self.until(lambda: self.said(text), f"{text!r} was said")

    def until_lines(self, count: int) -> list[str]:
        """Wait for so many lines of output."""
        self.until(lambda: len(self.lines) >= count, f"{count} lines")
        return self.lines

    def said(self, text: str) -> bool:
        return any(text in line for line in (*self.lines, *self.errors))

    def expect(self, start: str) -> str:
        """The next line of output that begins so; those before it are done with, too."""

        def look() -> str | None:
            while self._expected < len(self.lines):
                self._expected += 1
                line = self.lines[self._expected - 1]
                if line.startswith(start):
                    return line
            return None

        found = self.until(look, f"a line {start!r}")
        assert found is not None
        return found

    def numbers(self, pattern: str) -> list[int]:
        """What the group of a pattern is in the lines that have it."""
        found = (re.search(pattern, line) for line in tuple(self.lines))
        return [int(match[1]) for match in found if match]

    # --- what it is told ----------------------------------------------------------------------

    def tell(self, line: str) -> None:
        stream = self.process.stdin
        assert stream is not None
        stream.write(line + "\n")
        stream.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, after everything it said was read."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return code

    def leave(self, timeout: float = PATIENCE) -> int:
        """End its input, and return its exit code."""
        self._close_input()
        return self.wait(timeout)

    def end(self) -> None:
        """Kill -9; nothing if it has ended."""
        self.process.kill()
        self.wait()
        self._close_input()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    # --- inside -------------------------------------------------------------------------------

    def _close_input(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def _keep(stream: IO[str], lines: list[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line.rstrip("\n"))
