"""``raftckpt run`` and ``raftckpt group`` with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

from raftckpt import SessionLost, ha
from raftckpt.client.core import ClientCore
from raftckpt.client.routing import Router
from raftckpt.ha.supervisor import Settings, Supervisor
from tests.e2e.link import Link
from tests.waiting import until

PATIENCE = 60.0
PROGRAM = str(Path(__file__).with_name("supervised.py"))


class SupervisedRun:
    """A supervisor in a process; its program appends to a file."""

    def __init__(
        self, cluster: Any, group: str, name: str, folder: Path, *words: str, options: Any = ()
    ) -> None:
        self.file = folder / name
        self.file.touch()
        command = [sys.executable, PROGRAM, str(self.file), *words]
        self.start(cluster, group, name, command, ["--start", "always", *options])

    def start(self, cluster: Any, group: str, name: str, command: Any, options: Any) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "raftckpt_cli.main", "run", "--group", group, "--name", name,
                "--session-timeout", "60", *options,
                "--endpoints", cluster.endpoints, "--", *command,
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()

    @property
    def pid(self) -> int:
        """Of the program."""
        return int([line.split()[1] for line in self.lines if line.startswith("start")][-1])

    def expect(self, *lines: str) -> None:
        """Wait until these lines were written, in this order, perhaps with others between."""

        def found() -> bool:
            rest = iter(self.lines)
            return all(any(line == wanted for line in rest) for wanted in lines)

        until(found, f"{lines} in {self.lines}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def runs(cluster, group, tmp_path):
    made: list[SupervisedRun] = []

    def make(name: str, *words: str, options: Any = ()) -> SupervisedRun:
        run = SupervisedRun(cluster, group, name, tmp_path, *words, options=options)
        made.append(run)
        return run

    yield make
    for run in made:
        run.end()


@pytest.fixture
def operate(cluster, capsys, monkeypatch):
    """Run ``raftckpt group`` and return (exit code, JSON or error)."""
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", cluster.endpoints)

    def operate_(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert cli_main.run(["group", *arguments, "-o", "json", "--timeout", "60"]) == code
        out = capsys.readouterr()
        return json.loads(out.out) if code == 0 else out.err

    return operate_


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_program_gets_its_roles_and_is_restarted_as_a_standby(runs) -> None:
    a = runs("a")
    a.expect("ACTIVE first -")
    b = runs("b")
    b.expect("STANDBY join -")
    os.kill(a.pid, signal.SIGKILL)
    b.expect("ACTIVE component_failed a")
    a.expect("ACTIVE first -", "STANDBY join -")


def test_the_program_dies_with_its_supervisor_which_loses_the_role(runs) -> None:
    a, b = runs("a"), None
    a.expect("ACTIVE first -")
    b = runs("b")
    b.expect("STANDBY join -")
    program = a.pid
    a.process.kill()
    b.expect("ACTIVE session_ended a")
    until(lambda: gone(program), "the program is gone")


def test_sigterm_ends_the_program_and_hands_over(runs) -> None:
    a = runs("a")
    a.expect("ACTIVE first -")
    b = runs("b")
    b.expect("STANDBY join -")
    a.process.terminate()
    assert a.process.wait(PATIENCE) == 0
    assert gone(a.pid)
    b.expect("ACTIVE left a")


@pytest.mark.parametrize("word", ["no-active", "exit-on-active", "hang"])
def test_a_program_that_cannot_be_active_does_not_hold_the_group_up(runs, word) -> None:
    options = ["--response-timeout", "0.5", "--stop-timeout", "0"]
    a = runs("a", word, options=options)
    a.expect("ACTIVE first -")
    b = runs("b")
    until(lambda: any(line.startswith("ACTIVE") for line in b.lines), "b is active")
    until(lambda: sum(line.startswith("start") for line in a.lines) > 1, "a restart")


def test_a_program_that_says_nothing_is_replaced(runs) -> None:
    a = runs("a", options=["--health-check", "3"])
    b = runs("b")
    until(lambda: any(line.startswith("ACTIVE") for line in a.lines + b.lines), "roles")
    until(lambda: sum(line.startswith("start") for line in a.lines) > 1, "a restart")


def test_operators(runs, operate, group, cluster, capsys) -> None:
    a = runs("a")
    a.expect("ACTIVE first -")
    b = runs("b")
    b.expect("STANDBY join -")
    until(lambda: operate("show", group)["ready"] == 1, "a standby")
    found = operate("swap", group)
    assert (found["active"], found["active_state"], found["ready"]) == ("b", "active", 1)
    a.expect("QUIESCED swap -", "STANDBY swap -")
    assert "group show" in operate("swap", group, "--to", "nobody", code=ExitCode.REFUSED)
    assert operate("swap", group, "--to", "a")["active"] == "a"
    assert operate("lock", group)["admin"] == "locked"
    b.expect("ACTIVE swap a", "STANDBY swap -", "UNASSIGNED lock -")
    programs = [a.pid, b.pid]
    assert operate("lock-instantiation", group)["admin"] == "locked-instantiation"
    until(lambda: all(map(gone, programs)), "the programs are gone")
    assert operate("unlock", group)["active_state"] == "active"
    until(lambda: not any(map(gone, [a.pid, b.pid])), "they run again")
    assert operate("shutdown", group)["active"] is None
    assert "2 components" in operate("delete", group, code=ExitCode.REFUSED)
    assert group in [row["group"] for row in operate("list")]
    for run in (a, b):
        run.process.terminate()
        run.process.wait(PATIENCE)
    members = operate("show", group)["members"]
    assert members == []
    assert operate("delete", group) == {"group": group, "deleted": True}
    operate("show", group, code=ExitCode.NOT_FOUND)
    assert cli_main.run(["group", "list"]) == 0
    assert capsys.readouterr().out.startswith("GROUP")


def test_a_program_that_knows_nothing_runs_while_active(cluster, group, tmp_path, operate) -> None:
    made = []
    try:
        for name in "ab":
            run = SupervisedRun.__new__(SupervisedRun)
            run.file = tmp_path / name
            run.file.touch()
            command = ["sh", "-c", f"echo start $$ >> {run.file}; exec sleep 1000"]
            run.start(cluster, group, name, command, ["--start", "active"])
            made.append(run)
            if name == "a":
                run.expect()
                until(lambda r=run: r.lines, "a runs")
        a, b = made
        until(lambda: operate("show", group)["ready"] == 1, "a standby")
        assert b.lines == []
        first = a.pid
        operate("swap", group)
        until(lambda: b.lines, "b runs")
        assert gone(first)
        os.kill(b.pid, signal.SIGKILL)
        until(lambda: len(a.lines) == 2, "a runs again")
    finally:
        for run in made:
            run.end()


def test_what_cannot_be_run(cluster, group, capsys) -> None:
    at = ["--endpoints", cluster.endpoints]
    assert cli_main.run(["run", "--group", group, *at, "--", "/no/such/program"]) == 1
    assert "no/such/program" in capsys.readouterr().err
    assert cli_main.run(["run", *at, "--", "true"]) == ExitCode.USAGE
    options = ["--group", group, "--start", "active", "--health-check", "1"]
    assert cli_main.run(["run", *options, *at, "--", "true"]) == ExitCode.USAGE


def test_as_the_first_process_it_reaps(cluster, group, tmp_path) -> None:
    """What its program's children leave behind is handed to it, as in a container."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no process namespaces here")
    said = tmp_path / "said"
    program = (
        "for i in 1 2 3 4 5; do (setsid sleep 0.1 &); done; sleep 1; "
        f"ps -o stat= --ppid 1 > {said}.new; mv {said}.new {said}; exec sleep 1000"
    )
    run = subprocess.Popen(
        [
            "unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
            sys.executable, "-m", "raftckpt_cli.main", "run", "--group", group, "--name", "a",
            "--endpoints", cluster.endpoints, "--", "sh", "-c", program,
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(said.exists, "the program has looked around")
        states = said.read_text().split()
        assert states
        assert not [state for state in states if state.startswith("Z")]
    finally:
        run.kill()
        run.wait()


@pytest.fixture
def links(cluster, monkeypatch) -> Iterator[list[Link]]:
    """The only ways to the replicas for who is given them."""
    monkeypatch.setattr(ClientCore, "learn", lambda self, members: None)
    monkeypatch.setattr(Router, "suggest", lambda self, endpoint: None)
    made = [Link(cluster, node) for node in cluster.nodes]
    yield made
    for link in made:
        link.close()


def test_a_program_that_is_cut_off_is_gone_before_another_one_runs(
    cluster, group, tmp_path, links
) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    made: list[tuple[Supervisor, threading.Thread]] = []

    def supervise(name: str, endpoints: str) -> None:
        # it notes itself, and whether somebody else still works
        program = (
            f"for pid in $(cat {notes}); do kill -0 $pid && echo $pid >> {notes}.both; done; "
            f"echo $$ >> {notes}; exec sleep 1000"
        )
        settings = Settings(group, name, ["sh", "-c", program], stop_timeout=0.5)
        supervisor = Supervisor(
            lambda: ha.connect(endpoints, session_timeout=3.0, disconnect_grace=1.5, timeout=60),
            settings,
            lambda text: None,
        )
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        made.append((supervisor, thread))

    def started() -> list[str]:
        return notes.read_text().split()

    supervise("a", ",".join(link.endpoint for link in links))
    until(started, "a runs")
    supervise("b", cluster.endpoints)
    with ha.connect(cluster.endpoints, timeout=60) as service:
        until(lambda: ha.Group(service, group).status().ready == 1, "b stands by")
    first = int(started()[0])
    for link in links:
        link.cut(True)
    until(lambda: len(started()) == 2, "b runs")
    assert gone(first)
    for link in links:
        link.cut(False)
    for supervisor, thread in made:
        supervisor.stop()
        thread.join(30)
    assert not Path(f"{notes}.both").exists()


@pytest.mark.parametrize("outlived", [True, False])
def test_an_active_component_that_is_cut_off_judges_its_own_time(
    cluster, group, links, outlived
) -> None:
    """Told before another one is; back in its role if the session outlived the cut."""
    told: list[tuple[str, str, str]] = []
    epochs: set[int] = set()

    def cut(stalled: bool) -> None:
        for link in links:
            link.cut(stalled)

    def note(assignment: ha.Assignment) -> None:
        told.append((assignment.component, assignment.state.name, assignment.reason))
        if assignment.state is ha.HaState.ACTIVE:
            epochs.add(assignment.epoch)
        if outlived and assignment.reason == "isolated":
            cut(False)

    options: dict[str, Any] = dict.fromkeys(
        ("on_active", "on_standby", "on_quiesced", "on_removed"), note
    )
    ways = ",".join(link.endpoint for link in links)
    with (
        ha.connect(ways, timeout=60) as one,
        ha.connect(cluster.endpoints, timeout=60) as two,
    ):
        a = ha.Component(one, group, "a", rejoin=False, stop_time=1.5, **options)
        b = ha.Component(two, group, "b", **options)
        runners = [threading.Thread(target=run_quietly, args=(each,)) for each in (a, b)]
        for runner in runners:
            runner.start()
        until(lambda: len(told) == 2, "roles")
        cut(True)
        until(lambda: ("a", "QUIESCED", "isolated") in told, "a is told")
        if outlived:
            until(lambda: ("a", "ACTIVE", "reconnected") in told, "a is back")
            assert len(epochs) == 1
        else:
            until(lambda: ("b", "ACTIVE", "session_ended") in told, "b takes over")
            cut(False)
            until(lambda: ("a", "REMOVED", "session_lost") in told, "a's end")
            told = [item for item in told if item[1] != "STANDBY"]
            assert [item[:2] for item in told] == [
                ("a", "ACTIVE"), ("a", "QUIESCED"), ("b", "ACTIVE"), ("a", "REMOVED")
            ]  # fmt: skip
        for component in (a, b):
            component.stop()
        for runner in runners:
            runner.join(30)


def run_quietly(component: ha.Component) -> None:
    with suppress(SessionLost):
        component.run()
