"""A run: copies of the project, workers in them, and the file of what is known so far.

The checkout is only read. Each worker has a copy of its own, writes one mutant into it, runs the
tests that run the changed line, nearest room of tests and quickest test first, and puts the module
back. The state file has one JSON line per result; its key is the text of the module and the change,
so that a run goes on where another ended, and an edited module is examined anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.mutants.operators import Mutant, mutants
from tests.mutants.rooms import Project, Room

CAUGHT: Final = ("caught", "timeout", "broken")
SURVIVED: Final = ("survived", "unseen")
MAP_LIMIT_S: Final = 1800.0
START_S: Final = 20.0
"""Importing and collecting on a busy machine."""
SLOWER: Final = 5.0
"""A test that takes so many times as long as it did hangs."""
LIMIT_S: Final = 300.0
_NOT_COPIED: Final = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".hypothesis", ".*_cache", "*.egg-info", "build", "data",
    "campaign", "benchmark-results", ".mutants",
)  # fmt: skip


class Task(NamedTuple):
    """A mutant of a room; ``key`` is its name in the state file."""

    room: str
    mutant: Mutant
    key: str


class Known:
    """The state file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text() if file.exists() else ""
        if text and not text.endswith("\n"):  # cut short: the run was killed
            with file.open("a") as stream:
                stream.write("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self._lines[entry["key"]] = entry

    def of(self, task: Task) -> dict[str, Any] | None:
        """What is known of a mutant."""
        return self._lines.get(task.key)

    def settled(self, task: Task, tests: str) -> bool:
        """Whether it need not be run: others than the tests it survived may catch it."""
        entry = self._lines.get(task.key)
        return entry is not None and (entry["status"] in CAUGHT or entry["against"] == tests)

    def add(self, entry: dict[str, Any]) -> None:
        """Keep a result."""
        with self._lock, self._file.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
            self._lines[entry["key"]] = entry


def tasks_of(
    project: Project, rooms: list[str], *, sample: int = 0, each: int = 0, seed: int = 0
) -> list[Task]:
    """The mutants of the rooms in an order by chance, so that every beginning is a fair sample.

    The place of a mutant depends on seed and mutant only: edits elsewhere do not shuffle anew.
    With ``each`` the rooms take turns, and only so many of each are taken: a small room is then
    seen as well as a large one, however early the run is stopped.
    """
    tasks = []
    for room in rooms:
        for path in project.rooms[room].modules(project.root):
            source = (project.root / path).read_bytes()
            text = hashlib.sha256(source).hexdigest()
            for mutant in mutants(path, source):
                key = hashlib.sha256(f"{text} {mutant.ident}".encode()).hexdigest()[:20]
                tasks.append(Task(room, mutant, key))
    tasks.sort(key=lambda task: random.Random(f"{seed} {task.mutant.ident}").random())
    if each:
        taken = [[task for task in tasks if task.room == room][:each] for room in rooms]
        tasks = [task for turn in zip_longest(*taken) for task in turn if task]
    return tasks[:sample] if sample else tasks


def fingerprint(root: Path, paths: list[str]) -> str:
    """Hash of the files below some paths."""
    digest = hashlib.sha256()
    for path in map(root.joinpath, paths):
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


class Worker:
    """A process in a copy, with the copy's folder."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.folder = folder
        self._root = folder / "copy"
        shutil.copytree(project.root, self._root, ignore=_NOT_COPIED)
        self._stamp = 10**9
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py"), *project.code],
            cwd=self._root,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Perform a job."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        extra = {"scratch": str(self.folder / "scratch"), "output": str(self.folder / "output")}
        print(json.dumps(job | extra), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"status": "lost"}')
        return answer

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """The copy with the mutant in it."""
        path = self._root / mutant.path
        source = path.read_bytes()
        try:
            self._write(path, mutant.applied(source))
            yield
        finally:
            self._write(path, source)

    def _write(self, path: Path, source: bytes) -> None:
        """Each text has a time of its own, else compiled code of the one before would be used."""
        path.write_bytes(source)
        self._stamp += 2
        os.utime(path, (self._stamp, self._stamp))

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Make it end, whatever it is doing."""
        self._process.send_signal(signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._process.communicate()


class Map:
    """Which tests of a room run which lines."""

    def __init__(self, room: Room, root: Path, found: dict[str, Any]) -> None:
        paths = room.test_paths(root)
        self._lines: dict[str, dict[str, list[int]]] = found["lines"]
        self._tests: list[tuple[str, float]] = [(test, seconds) for test, seconds in found["tests"]]
        self._apart = room.apart
        failed = set(found["failed"])
        ranks = []
        for number, (test, seconds) in enumerate(self._tests):
            near = next(rank for rank, path in enumerate(paths) if test.startswith(path))
            if test not in failed:
                ranks.append((near, seconds, number))
        self._order = [number for _, _, number in sorted(ranks)]

    def tests(self, mutant: Mutant) -> list[tuple[str, float]]:
        """The tests that may notice, in the order they are run, with the seconds they take.

        Of what runs at import (constants, class bodies, defaults): first those that run something
        of the module, then all others, for they may use it as well.
        """
        lines = self._lines.get(mutant.path, {})
        numbers = {n for line in mutant.lines for n in lines.get(str(line), ())}
        numbers |= {
            number
            for module, tests in self._apart
            for number, (test, _) in enumerate(self._tests)
            if module == mutant.path and test.startswith(tests)
        }
        if -1 in numbers:
            numbers = {n for tests in lines.values() for n in tests}
            order = sorted(self._order, key=lambda number: number not in numbers)
        else:
            order = [number for number in self._order if number in numbers]
        return [self._tests[number] for number in order]


def mapped(project: Project, name: str, state: Path, worker: Worker) -> Map:
    """The map of a room: kept in the state folder as long as code and tests are the same."""
    room, root = project.rooms[name], project.root
    file = state / f"map-{name}-{fingerprint(root, [*room.test_paths(root), *room.sources])}.json"
    if not file.exists():
        print(f"{name}: looking which tests run which lines", flush=True)
        job = {"modules": room.modules(root), "files": room.test_paths(root), "limit": MAP_LIMIT_S}
        found = worker.ask(job)
        if not any(found.get("lines", {}).values()):
            output = (worker.folder / "output").read_text(errors="replace")
            raise SystemExit(f"{name}: its tests do not run its copy: {found}\n{output[-2000:]}")
        for old in state.glob(f"map-{name}-*.json"):
            old.unlink()
        file.write_text(json.dumps(found))
        for test in found["failed"]:
            print(f"{name}: fails without any change, is left out: {test}", flush=True)
    return Map(room, root, json.loads(file.read_text()))


def examined(worker: Worker, task: Task, tests: list[tuple[str, float]]) -> dict[str, Any]:
    """Run the tests on the mutant."""
    if not tests:
        return {"status": "unseen", "by": ""}
    names = [test for test, _ in tests]
    job = {
        "tests": names,
        "files": list(dict.fromkeys(name.partition("::")[0] for name in names)),
        "test_limit": round(START_S + SLOWER * max(seconds for _, seconds in tests)),
        "limit": min(LIMIT_S, START_S + SLOWER * sum(seconds for _, seconds in tests)),
    }
    with worker.changed(task.mutant):
        return worker.ask(job)


def run(
    project: Project,
    tasks: list[Task],
    state: Path,
    *,
    jobs: int = 1,
    minutes: float = 1e9,
    judged: Container[str] = (),
    told: Callable[[Task, dict[str, Any]], None] = lambda task, entry: None,
) -> None:
    """Examine the tasks of which nothing is known, ``jobs`` at a time, until the time is over.

    What survived is examined again if the room's tests have changed: before all others, for who
    wrote a test is waiting; but not if it is ``judged``, for then nobody is.
    """
    until = time.monotonic() + 60 * minutes
    known = Known(state / "results.jsonl")
    against = {
        name: fingerprint(project.root, project.rooms[name].test_paths(project.root))
        for name in {task.room for task in tasks}
    }
    missing = [task for task in tasks if not known.settled(task, against[task.room])]
    missing = [t for t in missing if known.of(t) is None or t.mutant.ident not in judged]
    missing.sort(key=lambda task: known.of(task) is None)
    print(f"{len(tasks) - len(missing)} of {len(tasks)} mutants are known already", flush=True)
    if not missing:
        return
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        workers = [
            stack.enter_context(Worker(project, scratch / str(number))) for number in range(jobs)
        ]
        needed = {task.room for task in missing}
        maps = {room: mapped(project, room, state, workers[0]) for room in sorted(needed)}
        for worker in workers:
            idle.put(worker)

        def perform(task: Task) -> None:
            if time.monotonic() > until:
                return
            worker = idle.get()
            begun, tests = time.monotonic(), maps[task.room].tests(task.mutant)
            result = examined(worker, task, tests)
            idle.put(worker)
            if result["status"] == "lost":  # the worker was told to end
                return
            entry = {
                "key": task.key,
                "id": task.mutant.ident,
                "room": task.room,
                "where": f"{task.mutant.path}:{task.mutant.line}",
                "change": f"{task.mutant.before}  ->  {task.mutant.after}",
                **result,
                "tests": len(tests),
                "seconds": round(time.monotonic() - begun, 2),
                "against": against[task.room],
            }
            known.add(entry)
            told(task, entry)

        pool = ThreadPoolExecutor(jobs)
        stack.callback(pool.shutdown, cancel_futures=True)
        for worker in workers:
            stack.callback(worker.stop)  # before the pool waits for what it is doing
        for future in [pool.submit(perform, task) for task in missing]:
            future.result()
