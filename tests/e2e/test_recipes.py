"""The programs of docs/guides/recipes, as a user runs them, and what kill -9 does to them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import raftckpt
from raftckpt import ha
from raftckpt.testing import LocalCluster
from tests.programs import Program
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "examples/recipes"
PAGES = ROOT / "docs/guides/recipes"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(3, tmp_path_factory.mktemp("recipes")) as cluster:
        yield cluster


def environment(cluster: LocalCluster) -> dict[str, str]:
    return {**os.environ, "RAFTCKPT_ENDPOINTS": cluster.endpoints}


def started(cluster: LocalCluster, name: str, *arguments: str | Path) -> Program:
    return Program(sys.executable, RECIPES / name, *arguments, env=environment(cluster))


@contextmanager
def leader_killed(cluster: LocalCluster) -> Iterator[None]:
    """The replica that leads dies before, and is back afterwards."""
    leader = cluster.leader()
    cluster.kill(leader)
    try:
        yield
    finally:
        cluster.start(leader)
        cluster.wait_ready()


def follows(seen: list[int], before: list[int]) -> None:
    """What the next one does begins behind the last one, or with it: it died in between."""
    assert seen[0] in (before[-1], before[-1] + 1, before[-1] + 2), (before[-3:], seen[:3])
    assert seen == list(range(seen[0], seen[0] + len(seen)))


@pytest.mark.long
def test_one_scheduler_is_active_and_no_slot_is_left_out(cluster) -> None:
    slot = r"^report for slot (\d+)"
    with started(cluster, "scheduler.py", "0.2") as first:
        first.until_said("active")
        with started(cluster, "scheduler.py", "0.2") as second:
            second.until_said("standby")
            first.until(lambda: len(first.numbers(slot)) >= 5, "five slots")
            first.end()
            second.until(lambda: len(second.numbers(slot)) >= 5, "five slots")
            follows(second.numbers(slot), first.numbers(slot))
            with leader_killed(cluster):
                seen = len(second.numbers(slot))
                second.until(lambda: len(second.numbers(slot)) >= seen + 5, "five more")
            slots = second.numbers(slot)
    assert slots == list(range(slots[0], slots[0] + len(slots)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("program", "group"), [("scheduler.py", "scheduler"), ("dispatcher.py", "dispatchers")]
)
def test_who_lost_the_session_comes_back_by_itself(cluster, program: str, group: str) -> None:
    with started(cluster, program) as only, ha.connect(cluster.endpoints) as service:
        only.until_said("active")
        only.signal(signal.SIGSTOP)
        until(lambda: not ha.Group(service, group).status().members, "it is given up")
        only.signal(signal.SIGCONT)
        only.until(
            lambda: sum(line.startswith("active,") for line in only.lines) == 2,
            "it is active again",
        )
        only.end()


@pytest.mark.long
def test_a_worker_that_lost_the_session_comes_back_by_itself(cluster) -> None:
    pytest.importorskip("fastapi")
    port = free_port()
    with worker(cluster, port) as only, raftckpt.connect(cluster.endpoints) as service:
        only.until_said("Uvicorn running on")
        cookie, basket = shop(port, "POST", "/basket/apple")
        ckpt = service.open("web-sessions")
        only.signal(signal.SIGSTOP)
        until(lambda: len(ckpt.status().openers) == 1, "it is given up")
        only.signal(signal.SIGCONT)

        def served() -> bool:
            with suppress(urllib.error.HTTPError):  # 503: it has not noticed, or is opening
                return shop(port, "GET", "/basket", cookie)[1] == basket
            return False

        until(served, "it serves again")


@pytest.mark.long
def test_the_storage_refuses_who_leads_no_more(cluster, tmp_path) -> None:
    file = tmp_path / "storage.db"
    with started(cluster, "fenced_leader.py", file) as first:
        first.until_said("with token")
        with started(cluster, "fenced_leader.py", file) as second:
            first.signal(signal.SIGSTOP)  # it believes to lead when it wakes up
            second.until_said("leads with token")
            second.until(lambda: len(second.numbers(r"wrote (\d+)")) >= 3, "it writes")
            first.signal(signal.SIGCONT)
            first.until(lambda: first.said("refused") or not first.running or
                        first.said("leads no more"), "it leads no more")  # fmt: skip
            first.end()
            second.end()
    rows = sqlite3.connect(file).execute("SELECT number, token FROM written ORDER BY 1").fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    tokens = [row[1] for row in rows]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 2


@pytest.mark.long
def test_visitors_stay_when_workers_and_replicas_die(cluster) -> None:
    pytest.importorskip("fastapi")
    ports = [free_port(), free_port()]
    with worker(cluster, ports[0]) as first, worker(cluster, ports[1]) as second:
        for each in (first, second):
            each.until_said("Uvicorn running on")
        cookie, basket = shop(ports[0], "POST", "/basket/apple")
        assert basket == {"basket": ["apple"]}
        first.end()
        cookie, basket = shop(ports[1], "POST", "/basket/pear", cookie)
        assert basket == {"basket": ["apple", "pear"]}
        with leader_killed(cluster):
            assert shop(ports[1], "GET", "/basket", cookie)[1] == basket


def worker(cluster: LocalCluster, port: int) -> Program:
    return Program(
        *(sys.executable, "-m", "uvicorn", "web_sessions:app", "--port", str(port)),
        env=environment(cluster),
        cwd=RECIPES,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def shop(port: int, method: str, path: str, cookie: str = "") -> tuple[str, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if cookie:
        request.add_header("Cookie", cookie)
    with urllib.request.urlopen(request, timeout=30) as reply:
        given = reply.headers.get("set-cookie", "").partition(";")[0]
        return given or cookie, json.loads(reply.read())


@pytest.mark.long
def test_every_job_has_one_result(cluster) -> None:
    with (
        raftckpt.connect(cluster.endpoints) as service,
        service.open("jobs", create=raftckpt.Attributes()) as jobs,
        started(cluster, "dispatcher.py") as first,
    ):
        first.until_said("active")
        with started(cluster, "dispatcher.py") as second:
            second.until_said("standby")
            for number in range(300):
                jobs.put(f"todo/{number:04}", b"work %d" % number)
            first.until_said("done")
            first.end()
            with leader_killed(cluster):
                until(lambda: not jobs.ids(prefix=b"todo/"), "all jobs are done")
            results = {id: data for id, data in jobs.read_all().items() if id.startswith(b"done/")}
    assert results == {b"done/%04d" % n: b"WORK %d" % n for n in range(300)}
    again = set(first.numbers(r"^done (\d+)")) & set(second.numbers(r"^done (\d+)"))
    assert not again  # a job whose result was written is not done again


@pytest.mark.long
def test_the_command_under_the_lock_runs_once_at_a_time(cluster, tmp_path) -> None:
    def locked() -> Program:
        return Program(
            *(sys.executable, "-m", "raftckpt_cli.main", "lock", "nightly", "--", "./backup.sh"),
            tmp_path,
            env={**environment(cluster), "PAUSE": "0.4"},
            cwd=RECIPES,
        )

    with locked() as first:
        first.until_said("begun with token")
        with locked() as second:
            first.end()  # the lock's supervisor: its command goes with it
            second.until_said("begun with token")
            assert second.wait() == 0
        token = second.numbers(r"begun with token (\d+)")[0]
        assert first.numbers(r"begun with token (\d+)")[0] < token
    whole = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".part")]
    assert whole == [f"backup-{token}"]


@pytest.mark.long
def test_the_moved_program_goes_on(cluster) -> None:
    counted = r"^(\d+)$"
    with started(cluster, "moved.py") as first:
        first.until(lambda: len(first.numbers(counted)) >= 5, "five numbers")
        first.end()
    with started(cluster, "moved.py") as second, leader_killed(cluster):
        second.until(lambda: len(second.numbers(counted)) >= 5, "five numbers")
        follows(second.numbers(counted), first.numbers(counted))


@pytest.mark.long
def test_what_was_said_of_a_call_is_known_to_the_next_switch(cluster) -> None:
    with started(cluster, "calls.py", "20") as first:
        first.until_said("active")
        with started(cluster, "calls.py", "20") as second:
            second.until_said("standby")
            first.until(lambda: len(first.numbers(r"^safe (\d+)")) >= 10, "ten seconds")
            first.end()
            second.until(lambda: len(second.numbers(r"^safe (\d+)")) >= 3, "three more")
            found = second.numbers(r"sequence (\d+)")[0]
            assert found >= first.numbers(r"^safe (\d+)")[-1]
            assert second.numbers(r"^safe (\d+)")[0] > found


# --- several groups -------------------------------------------------------------------------
def test_checkpoints_are_found_in_the_group_that_their_name_says(cluster) -> None:
    with LocalCluster(1, faults=False) as other:
        groups = {"west": cluster.endpoints, "east": other.endpoints}
        told = " ".join(f"{group}={endpoints}" for group, endpoints in groups.items())
        names = [f"grouped/{number}" for number in range(8)]

        def said(*words: str) -> list[str]:
            env = {**os.environ, "RAFTCKPT_GROUPS": told}
            command = [sys.executable, RECIPES / "groups.py", *words]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        places = dict(line.split() for line in said("where", *names))
        assert set(places.values()) == {"west", "east"}
        name = {group: each for each, group in places.items()}
        for group in groups:
            said("put", name[group], "key", group)
        for group, endpoints in groups.items():
            assert said("get", name[group], "key") == [group]
            with raftckpt.connect(endpoints) as service:
                held = {each.name for each in service.checkpoints()} & set(names)
                assert held == {name[group]}, "in its group, and in no other"
        other.kill()
        assert said("get", name["west"], "key") == ["west"], "a group that is down is its own loss"
        told += " north=127.0.0.1:1"
        others = [f"n{number}" for number in range(200)]
        now = dict(line.split() for line in said("where", *names, *others))
        assert {now[each] for each in names if now[each] != places[each]} <= {"north"}
        assert 40 < sum(group == "north" for group in now.values()) < 100, "its share"


# --- the pages ------------------------------------------------------------------------------
@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_what_a_page_shows_is_the_program(page: Path) -> None:
    pattern = r"<!-- recipe: (\S+)[^\n]*-->\n```\w+\n(.*?)```"
    shown = re.findall(pattern, page.read_text("utf-8"), re.DOTALL)
    assert shown or page.name == "index.md"
    for name, text in shown:
        assert text in (RECIPES / name).read_text("utf-8"), name


def test_each_program_has_a_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES.glob("*.md"))
    assert [each.name for each in RECIPES.iterdir() if each.is_file()
            and f"recipes/{each.name}" not in pages] == []  # fmt: skip
