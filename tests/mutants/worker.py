"""One process that runs tests in one copy of the project, each time in a fresh fork of itself.

Started as a script in the copy. It imports what all tests need (pytest, Hypothesis, libraries) but
nothing of the project, so that a fork costs nothing and imports the changed module anew. A line of
JSON in is a job, a line of JSON out its result. Each fork is the leader of a session that is killed
as a whole, and has limits of memory and file size: changed code may loop, fork and fill disks.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

MEMORY_BYTES: Final = 4 << 30
FILE_BYTES: Final = 1 << 30
_LIBRARIES: Final = (
    "asyncio",
    "hypothesis.stateful",
    "msgpack",
    "google_crc32c",
    "yaml",
    "click.testing",
    "trustme",
    "pysyncobj",
    "uvloop",
)
_QUIET: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # imported before: on purpose
_PDEATHSIG: Final = 1


class Chosen:
    """Runs the tests named, in the order named; remembers the first that failed."""

    def __init__(self, tests: list[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}
        self.broken: str | None = None
        self.failed: str | None = None
        self.hung = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        chosen = [item for item in items if item.nodeid in self._rank]
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in self._rank])
        items[:] = sorted(chosen, key=lambda item: self._rank[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.broken is None:
            self.broken = report.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid
            self.hung = "from pytest-timeout" in report.longreprtext


class Mapper:
    """Which test runs which lines, how long each takes, and which fail without any change."""

    def __init__(self, modules: list[str]) -> None:
        import coverage

        self._modules = modules
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=modules)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._coverage.switch_context(item.nodeid)
        yield
        self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def result(self) -> dict[str, Any]:
        """All of it; a test is named by its number."""
        self._coverage.stop()
        data = self._coverage.get_data()
        numbers = {test: number for number, test in enumerate(self.seconds)} | {"": -1}
        lines = {
            module: {
                line: sorted(numbers[test] for test in tests if test in numbers)
                for line, tests in data.contexts_by_lineno(os.path.abspath(module)).items()
            }
            for module in self._modules
        }
        tests = [[test, round(seconds, 4)] for test, seconds in self.seconds.items()]
        return {"tests": tests, "failed": sorted(set(self.failed)), "lines": lines}


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of a job (in the fork)."""
    common = ["-q", "-p", "no:cacheprovider", f"--basetemp={job['scratch']}", *_QUIET]
    if "modules" in job:
        mapper = Mapper(job["modules"])
        pytest.main([*common, *job["files"]], plugins=[mapper])
        return mapper.result()
    chosen = Chosen(job["tests"])
    arguments = [*common, "-x", f"--timeout={job['test_limit']}", *job["files"]]
    try:
        code = int(pytest.main(arguments, plugins=[chosen]))
    except BaseException as error:  # a plugin of the project that cannot be imported
        return {"status": "broken", "by": repr(error)[:200]}
    if chosen.broken is not None or (code not in (0, 1) and chosen.failed is None):
        return {"status": "broken", "by": chosen.broken or f"pytest: {code}"}
    if chosen.failed is not None:
        return {"status": "timeout" if chosen.hung else "caught", "by": chosen.failed}
    return {"status": "caught", "by": "exit code"} if code else {"status": "survived", "by": ""}


def _in_fork(job: dict[str, Any], answer: int) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    result = json.dumps(perform(job)).encode()
    with os.fdopen(answer, "wb") as stream:
        stream.write(result)


def forked(job: dict[str, Any]) -> dict[str, Any]:
    """The result of a job: what its fork says, or how it ended without a word."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            _in_fork(job, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(theirs)
    received, until = b"", time.monotonic() + job["limit"]
    try:
        while (left := until - time.monotonic()) > 0 and select.select([ours], [], [], left)[0]:
            piece = os.read(ours, 1 << 16)
            if not piece:
                break
            received += piece
        else:
            return {"status": "timeout", "by": "all together"}
    finally:
        with contextlib.suppress(ProcessLookupError):  # it did not get as far as its session
            os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
    return json.loads(received) if received else {"status": "caught", "by": "the process died"}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Not this script's folder: no file of ours may be taken for a module of the project.
    sys.path[0:1] = [str(Path(entry).resolve()) for entry in sys.argv[1:]]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(sys.argv) - 1])
    hypothesis.settings.register_profile(
        "mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None
    )
    hypothesis.settings.load_profile("mutants")  # how small the example is, nobody asks
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
