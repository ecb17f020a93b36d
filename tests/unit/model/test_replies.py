"""Exactly once, in order: the rules of the sequence numbers one by one."""

from __future__ import annotations

from raftckpt.model.replies import ReplyTable
from raftckpt.model.types import success
from raftckpt.protocol.contract import SEQUENCE_WINDOW

from .driver import DrivenMachine, DrivenSession, attributes, why


def filled(count: int) -> ReplyTable:
    table = ReplyTable()
    for number in range(1, count + 1):
        assert table.admit(number, 0) is None
        table.remember(success(number))
    return table


def test_repeat_gets_the_first_result() -> None:
    table = filled(5)
    assert [table.admit(n, 0) for n in range(1, 6)] == [success(n) for n in range(1, 6)]
    assert table.last == 5


def test_answered_is_never_executed_again() -> None:
    table = filled(5)
    assert table.admit(6, 3) is None
    table.remember(success(6))
    for number in (-1, 0, 1, 3):
        assert why(table.admit(number, 0)) == (2, "answered", None)  # type: ignore[arg-type]
    assert table.admit(4, 0) == success(4)
    assert table.results() == [success(4), success(5), success(6)]


def test_gap_is_not_recorded() -> None:
    table = filled(2)
    assert why(table.admit(4, 2)) == (6, "gap", None)  # type: ignore[arg-type]
    assert table.last == 2
    assert table.admit(3, 2) is None


def test_window_bounds_the_table() -> None:
    table = filled(SEQUENCE_WINDOW)
    assert why(table.admit(SEQUENCE_WINDOW + 1, 0)) == (6, "window", None)  # type: ignore[arg-type]
    assert why(table.admit(SEQUENCE_WINDOW + 9, 1)) == (6, "window", None)  # type: ignore[arg-type]
    assert table.admit(SEQUENCE_WINDOW + 1, 1) is None


def test_answered_beyond_last_counts_as_last() -> None:
    table = filled(3)
    assert table.admit(4, 10**18) is None
    assert table.answered == 3
    table.remember(success(4))
    assert table.admit(4, 0) == success(4)


def test_refusals_are_recorded_and_consume_the_sequence() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    refused = client.do(10, "ckpt", 3, None)
    assert why(refused) == (12, "checkpoint_missing", None)
    other = cluster.session()
    other.open("ckpt")  # now it would succeed
    (again,) = cluster.apply([10, client.id, 1, 0, "ckpt", 3, None])
    assert again == refused
    assert client.do(10, "ckpt", 3, None).ok


def test_same_command_twice_in_one_batch_runs_once() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open()
    put = [24, client.id, 2, 1, handle, b"a", b"1"]
    first, second = cluster.apply(put, put)
    assert first == second == success(2)
    assert cluster.machine.revision == 2


def test_session_open_is_found_again_by_its_secret() -> None:
    cluster = DrivenMachine()
    command = [1, 0, 0, 0, b"s" * 16, "app", "n1", 10**10, 0]
    first, second = cluster.apply(command, command)
    assert first == second == success([1])
    assert cluster.apply([1, 0, 0, 0, b"t" * 16, "app", "n1", 10**10, 0]) == [success([2])]
    assert cluster.machine.session_secret_ok(1, b"s" * 16)
    assert not cluster.machine.session_secret_ok(1, b"t" * 16)
    assert not cluster.machine.session_secret_ok(3, b"t" * 16)


def test_unknown_session() -> None:
    cluster = DrivenMachine()
    ghost = DrivenSession(cluster, 7, b"")
    assert why(ghost.do(10, "ckpt", 7, attributes())) == (9, "session", None)
    assert why(ghost.do(99, 1)) == (9, "session", None)
    assert why(cluster.apply([24, 0, 1, 0, 1, b"a", b""])[0]) == (9, "session", None)


def test_session_shows_where_it_stands() -> None:
    cluster = DrivenMachine()
    client = cluster.session(node="n2", name="me")
    client.open()
    client.do(12, "none")
    session = cluster.machine.sessions[client.id]
    assert (session.name, session.node, session.last_sequence, session.answered) == (
        "me",
        "n2",
        2,
        1,
    )
