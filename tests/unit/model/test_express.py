"""The express lane does what the long way would have done, or leaves it to the long way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt.model import machine as machine_module
from raftckpt.model import queries
from raftckpt.model.express import plain_overwrite, plain_read
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import Result
from raftckpt.protocol.contract import PAGE_BYTES
from raftckpt.protocol.operations import Read, SectionPut
from tests.messages import ask

from .driver import READ, WRITE, DrivenMachine, DrivenSession, attributes


def prepared() -> DrivenSession:
    """Handle 1 of "x" reads and writes, 2 only writes, 3 only reads; a and b exist."""
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=9, section=3 * PAGE_BYTES))
    client.open("x", WRITE)
    client.open("x", READ)
    client.put(1, b"a", b"12345")
    client.put(1, b"b", b"")
    return client


def image(machine: CheckpointMachine) -> tuple[bytes, Any]:
    """All of the state: what snapshots hold, and what is derived from it."""
    return b"".join(machine.freeze()), ask(machine, None, 104).value


DATA = st.one_of(
    st.binary(max_size=9),
    st.sampled_from([b"x" * size for size in (PAGE_BYTES, PAGE_BYTES + 1, 3 * PAGE_BYTES + 1)]),
    st.sampled_from([1, None, "text"]),
)
COMMANDS = st.lists(
    st.tuples(
        st.sampled_from([23, 24, 24, 24, 25, 24.0, True]),
        st.sampled_from([0, 0, 0, 0, 1, -1, 7]),  # beside the session's number
        st.sampled_from([1, 1, 1, 1, 1, 0, 2, -3]),  # beside the last sequence
        st.sampled_from([-1, 0, 0, 0, 1, 5]),  # what was answered, beside it
        st.sampled_from([1, 1, 1, 1, 2, 3, 4, None]),
        st.sampled_from([b"a", b"a", b"b", b"", b"new", "a", b"much too long an id"]),
        DATA,
    ),
    max_size=30,
)


@settings(deadline=None)
@given(COMMANDS)
def test_states_and_results_are_those_of_the_long_way(steps: list[Any]) -> None:
    quick, slow = prepared(), prepared()
    machines = quick.cluster.machine, slow.cluster.machine
    assert image(machines[0]) == image(machines[1])
    for tag, other, ahead, seen, handle, section, data in steps:
        last = machines[0].sessions[quick.id].replies.last
        command = [tag, quick.id + other, last + ahead, last + seen, handle, section, data]
        results = quick.cluster.apply(command)
        changes = machines[0].changes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine_module, "plain_overwrite", lambda state, command: None)
            assert slow.cluster.apply(command) == results
        assert machines[1].changes == changes
        assert image(machines[0]) == image(machines[1])


ELEMENTS = st.tuples(
    st.sampled_from([b"a", b"a", b"b", b"c", b"", "a", None]),
    st.sampled_from([0, 0, 0, 1, -1, 9, None, 0.0]),
    st.sampled_from([None, None, 0, 2, 5, 6, 3 * PAGE_BYTES, 3 * PAGE_BYTES + 1, -1, "5"]),
).map(list)
READS = st.lists(ELEMENTS, max_size=2) | st.sampled_from([None, [None], [[b"a", 0]], b"a"])


@settings(deadline=None)
@given(st.sampled_from([1, 1, 2, 3, 4, "x", None, True]), READS, st.sampled_from([0, 0, 9, None]))
def test_reads_are_those_of_the_long_way(handle: Any, vector: Any, other: Any) -> None:
    client = prepared()
    machine = client.cluster.machine
    session = None if other is None else client.id + other
    found = ask(machine, session, 100, handle, vector)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "plain_read", lambda *args: None)
        assert ask(machine, session, 100, handle, vector) == found


def test_the_load_takes_the_express_lane() -> None:
    client = prepared()
    machine = client.cluster.machine
    last = machine.sessions[client.id].replies.last
    result = plain_overwrite(machine, SectionPut(client.id, last + 1, last, 1, b"a", b"new"))
    assert isinstance(result, Result)
    assert result.ok
    found = plain_read(machine, client.id, Read(0, 0, 0, 1, [(b"a", 0, None)]))
    assert found is not None
    assert found.value == [machine.revision, [b"new"]]
