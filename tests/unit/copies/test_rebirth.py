"""A state as a new cluster begins with it, and the directory that is made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftckpt.copies.rebirth import (
    FAR_ABOVE,
    Place,
    make_directory,
    reborn,
    settle_directory,
)
from raftckpt.copies.replay import configuration_of, replayed
from raftckpt.model.machine import CheckpointMachine
from raftckpt.storage import DataDirectory, Foreign, RealFileSystem, Storage, reading
from tests.unit.model.driver import (
    COLLOCATED,
    NEVER,
    SECOND,
    WEAK,
    DrivenMachine,
    DrivenSession,
    attributes,
)

OWN = Place("n1", "h1:1", "h1:2")
OTHERS = (Place("n2", "h2:1", "h2:2"), Place("n3", "h3:1", "h3:2"))


def busy() -> tuple[DrivenMachine, DrivenSession]:
    """A state with everything that ends with its session."""
    driven = DrivenMachine()
    session = driven.session()
    for name, retention in (("for ever", NEVER), ("a minute", 60 * SECOND), ("no time", 0)):
        handle = session.open(name, fields=attributes(retention=retention))
        assert session.put(handle, b"a", name.encode()).ok
    gone = session.open("unlinked")
    assert session.put(gone, b"a", b"x").ok
    assert session.do(12, "unlinked").ok
    handle = session.open("owned", fields=attributes(WEAK | COLLOCATED))
    assert session.do(14, handle, True).value[0] == 1
    assert session.do(50, "group", "one", 1, 10 * SECOND, 0).ok
    return driven, session


def test_sessions_are_gone_and_retention_begins_now() -> None:
    driven, _ = busy()
    machine, wall = driven.machine, driven.now + 3600 * SECOND
    state = reborn(machine, wall)
    assert (state.sessions, state.dropped) == (1, 2)
    assert sorted(machine.names) == ["a minute", "for ever", "owned"]
    assert machine.names["a minute"].retention_until_ns == wall + 60 * SECOND
    assert machine.names["owned"].active is None
    assert machine.now_ns == state.time_ns == wall
    assert not machine.sessions
    assert not machine.by_secret
    assert not machine.groups.members


def test_numbers_go_on_far_above_what_may_have_been_given_out() -> None:
    driven, session = busy()
    machine = driven.machine
    revision, uid, group = machine.revision, machine.next_uid, machine.groups.last
    epoch = machine.names["owned"].epoch
    state = reborn(machine, 0)
    assert state.revision == machine.revision > revision + FAR_ABOVE - 1
    again = driven.session()
    assert again.id >= session.id + FAR_ABOVE
    handle = again.open("owned", 3, None)
    assert again.do(14, handle, True).value[0] == epoch + FAR_ABOVE + 1
    assert machine.names["owned"].revision > revision + FAR_ABOVE
    again.open("new")
    assert machine.names["new"].uid >= uid + FAR_ABOVE
    joined = again.do(50, "group", "one", 1, 10 * SECOND, 0)
    assert min(joined.value) > group + FAR_ABOVE


def test_who_followed_a_checkpoint_sees_that_something_happened() -> None:
    driven, _ = busy()
    reborn(driven.machine, 0)
    for checkpoint in driven.machine.checkpoints.values():
        assert checkpoint.revision == driven.machine.revision
        for section in checkpoint.sections.values():
            assert section[3] < FAR_ABOVE, "sections keep the revision of their last change"


def test_it_is_a_state_that_can_be_written_and_read() -> None:
    driven, _ = busy()
    reborn(driven.machine, driven.now)
    image = b"".join(driven.machine.freeze())
    assert b"".join(CheckpointMachine.restore([image]).freeze()) == image


@pytest.mark.parametrize("empty", [False, True])
def test_the_directory_holds_it_and_keeps_places(tmp_path: Path, empty: bool) -> None:
    driven = DrivenMachine() if empty else busy()[0]
    reborn(driven.machine, driven.now)
    path = str(tmp_path / "n1")
    made = make_directory(
        path, "prod", OWN, driven.machine, level=2, parent="p" * 32, others=OTHERS, token="t" * 64
    )
    with reading(path) as held:
        found = replayed(held)
        assert b"".join(found.machine.freeze()) == b"".join(driven.machine.freeze())
        assert configuration_of(held) == made
        assert held.commit_index == held.last_index == driven.machine.applied_index
        assert held.journal is not None
        # a replica that joins holds entry 1 alone: nothing behind that may be sent to it as entries
        assert held.journal.entries[0][1] >= 2
    assert (made.level, made.parent, made.cluster, made.base) == (2, "p" * 32, "prod", 0)
    voter, *learners = made.members
    assert voter == ("n1", held.identity.directory, "h1:1", "h1:2", True, False, "", "", False)
    assert learners == [
        (each.node, "", each.peer, each.client, False, True, "", "t" * 64, False) for each in OTHERS
    ]
    storage = Storage.open(DataDirectory.open(RealFileSystem(), path, "prod", "n1"))
    assert storage.snapshots.latest_index() == driven.machine.applied_index
    storage.close()


def test_what_an_interrupted_one_left_is_made_anew_and_nothing_else_is_written_over(
    tmp_path: Path,
) -> None:
    driven, _ = busy()
    reborn(driven.machine, driven.now)
    made, path = str(tmp_path / "n1.restoring"), str(tmp_path / "n1")
    os.makedirs(made + "/journal")
    Path(made + "/journal/half").write_bytes(b"half")
    first = make_directory(made, "prod", OWN, driven.machine, level=2)
    second = make_directory(made, "prod", OWN, driven.machine, level=2)
    assert first.founding != second.founding
    os.mkdir(path)
    settle_directory(made, path)
    assert os.listdir(tmp_path) == ["n1"]
    make_directory(made, "prod", OWN, driven.machine, level=2)
    with pytest.raises(Foreign, match="there is something already"):
        settle_directory(made, path)
    with reading(path) as held:
        assert configuration_of(held) == second
    other = str(tmp_path / "n2.restoring")  # a node may be called so
    make_directory(other, "prod", Place("n2.restoring", "", ""), driven.machine, level=2)
    with pytest.raises(Foreign, match="there is something already"):
        make_directory(other, "prod", Place("n2", "", ""), driven.machine, level=2)
    with reading(other) as held:
        assert held.identity.node == "n2.restoring"


@pytest.mark.parametrize("rights_off", [False, True])
def test_rights_stay_as_they_were_unless_nobody_can_get_in(rights_off: bool) -> None:
    driven = DrivenMachine()
    session = driven.session()
    assert session.do(61, "ops", "t1", b"d" * 32, NEVER, False, None).ok
    assert session.do(65, "", "ops", 16, None).ok
    assert session.do(60, True, None).ok
    machine = driven.machine
    reborn(machine, driven.now, rights_off=rights_off)
    access = CheckpointMachine.restore(machine.freeze()).access
    assert access.on is not rights_off
    assert list(access.by_name) == ["ops"]
    assert access.revision == 3 + rights_off
