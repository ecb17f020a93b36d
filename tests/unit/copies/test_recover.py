"""Which directory goes furthest, and what becomes of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from raftckpt.copies import recover as room
from raftckpt.copies.rebirth import FAR_ABOVE
from raftckpt.copies.recover import compare, recover
from raftckpt.copies.replay import configuration_of, replayed
from raftckpt.raft.configuration import Configurations
from raftckpt.storage import Damaged, Foreign, InUse, Missing, RealFileSystem, Unsupported, reading
from raftckpt.version import HIGHEST_LEVEL
from tests.directories import FOUNDING, named_directory, open_founded, written_directory


def content_of(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def named(tmp_path: Path, *nodes: str) -> list[str]:
    return [str(tmp_path / node) for node in nodes]


def test_the_newest_log_is_named_by_term_first_and_then_by_its_end(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", node="n1", sections=9, committed=6)
    written_directory(tmp_path / "n2", node="n2", sections=4, committed=6, terms={8: 2})
    written_directory(tmp_path / "n3", node="n3", sections=3, committed=5)
    before = content_of(tmp_path)
    found = compare(named(tmp_path, "n1", "n2", "n3"))
    assert found.best.path == str(tmp_path / "n2")
    assert (found.committed.index, found.committed.revision) == (6, 3)
    assert (found.voters, found.here) == (3, 3)
    assert [row.lacks for row in found.directories] == ["", "", ""]
    assert content_of(tmp_path) == before
    assert compare(named(tmp_path, "n1", "n3")).best.path == str(tmp_path / "n1")
    alone = compare(named(tmp_path, "n3"))
    assert (alone.best.path, alone.here) == (str(tmp_path / "n3"), 1)


def test_a_newer_log_without_what_is_committed_is_not_named(tmp_path: Path) -> None:
    """Two of five are left: one knows that entry 7 of term 1 was committed (by others, which are
    gone, in term 3), the other has an entry 7 of the leader of term 2, which got nothing done.
    """
    nodes = ("n1", "n2", "n3", "n4", "n5")
    written_directory(tmp_path / "n1", node="n1", sections=3, committed=7, nodes=nodes)
    written_directory(
        tmp_path / "n2", node="n2", sections=4, committed=5, terms={7: 2, 8: 2}, nodes=nodes
    )
    found = compare(named(tmp_path, "n2", "n1"))
    assert found.best.path == str(tmp_path / "n1")
    assert "its entry 7 is another one" in found.directories[0].lacks
    assert found.committed.index == 7


def test_one_that_ends_before_what_is_committed_is_not_named(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", node="n1", sections=5, committed=9)
    written_directory(tmp_path / "n2", node="n2", sections=1, committed=4, terms={5: 9})
    found = compare(named(tmp_path, "n2", "n1"))
    assert found.best.path == str(tmp_path / "n1")
    assert found.directories[0].lacks == "it ends at entry 5; 9 is committed"


def test_those_that_cannot_be_read_are_told_and_do_not_count(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", node="n1")
    written_directory(tmp_path / "n2", node="n2", sections=5)
    segment = next((tmp_path / "n2" / "journal").iterdir())
    data = bytearray(segment.read_bytes())
    data[4096 + 60] ^= 1
    segment.write_bytes(bytes(data))
    named_directory(RealFileSystem(), str(tmp_path / "n3"), "golden", "n3").close()
    found = compare(named(tmp_path, "n1", "n2", "n3"))
    assert found.best.path == str(tmp_path / "n1")
    assert found.here == 1
    assert "damaged" in found.directories[1].problem
    assert found.directories[2].state == "new"
    with pytest.raises(Missing, match="none of them holds a log"):
        compare(named(tmp_path, "n2", "n3"))


def test_directories_of_different_clusters_are_refused(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", node="n1")
    written_directory(tmp_path / "n2", node="n2")
    recover(str(tmp_path / "n2"))
    with pytest.raises(Foreign, match="different foundings"):
        compare(named(tmp_path, "n1", "n2"))


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("exchange", [False, True])
def test_what_was_in_it_is_in_the_new_cluster_and_the_former_one_is_kept(
    tmp_path: Path, monkeypatch, snapshot: bool, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(room, "_exchanged", lambda one, two: False)
    path = tmp_path / "n1"
    machine = written_directory(path, sections=4, snapshot=snapshot, committed=6, pinned=snapshot)
    before = content_of(path)
    made = recover(str(path))
    assert sorted(os.listdir(tmp_path)) == ["n1", os.path.basename(made.aside)]
    assert content_of(Path(made.aside)) == before
    assert (made.node, made.cluster, made.parent) == ("n1", "golden", FOUNDING)
    committed = 8 if snapshot else 6
    assert (made.committed.index, made.last.index) == (committed, 8)
    assert made.last.revision == machine.revision
    assert made.state.sessions == 1
    assert [other.node for other in made.others] == ["n2", "n3"]
    with reading(str(path)) as held:
        configuration = configuration_of(held)
        assert configuration is not None
        (voter,) = configuration.members
        assert (voter.node, voter.peer, voter.voter) == ("n1", "n1:1", True)
        assert configuration.parent == FOUNDING
        assert configuration.pinned is snapshot
        assert configuration.founding == made.founding != FOUNDING
        assert held.identity.directory not in ("n1", "")
        state = replayed(held).machine
        assert state.level == configuration.level == HIGHEST_LEVEL
    assert state.revision == machine.revision + FAR_ABOVE
    found = {key: bytes(value[0]) for key, value in state.names["c"].sections.items()}
    assert found == {key: bytes(v[0]) for key, v in machine.names["c"].sections.items()}
    again = recover(str(path))  # it is a directory like others
    assert again.parent == made.founding


def test_a_directory_in_use_without_a_log_or_of_a_later_level_is_left_alone(
    tmp_path: Path, monkeypatch
) -> None:
    written_directory(tmp_path / "n1")
    lock = RealFileSystem().lock(str(tmp_path / "n1" / "lock"))
    before = content_of(tmp_path)
    with pytest.raises(InUse):
        recover(str(tmp_path / "n1"))
    assert content_of(tmp_path) == before
    lock.release()
    named_directory(RealFileSystem(), str(tmp_path / "n2"), "golden", "n2").close()
    with pytest.raises(Foreign, match="it holds no log: it is new"):
        recover(str(tmp_path / "n2"))
    written_directory(tmp_path / "n3", node="n3", level=HIGHEST_LEVEL + 1)
    with pytest.raises(Unsupported, match=f"level {HIGHEST_LEVEL + 1}"):
        recover(str(tmp_path / "n3"))
    assert sorted(os.listdir(tmp_path)) == ["n1", "n2", "n3"]


def test_an_interrupted_one_is_done_again(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "n1"
    machine = written_directory(path)

    def interrupted(made: str, path: str, aside: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(room, "_swap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recover(str(path))
    assert sorted(os.listdir(tmp_path)) == ["n1", "n1.recovering"]
    with reading(str(path)) as held:
        assert replayed(held).machine.revision == machine.revision
    made = recover(str(path))
    assert sorted(os.listdir(tmp_path)) == ["n1", os.path.basename(made.aside)]
    shutil.rmtree(made.aside)


def with_entry(path: Path, payload: bytes) -> None:
    storage = open_founded(RealFileSystem(), str(path), "golden", "n1")
    storage.journal.append_entry(b"\x02" + storage.identity.record, 1, 0)
    storage.journal.append_entry(payload, 2, 1)
    storage.journal.sync()
    storage.close()


def test_a_configuration_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    with_entry(tmp_path / "n1", b"\x02no configuration")
    with pytest.raises(Damaged, match="a configuration in its log"):
        recover(str(tmp_path / "n1"))
    assert os.listdir(tmp_path) == ["n1"]


def test_an_entry_that_is_no_batch_does_nothing_and_is_told(tmp_path: Path) -> None:
    with_entry(tmp_path / "n1", b"\x00no batch")
    with reading(str(tmp_path / "n1")) as held:
        state = replayed(held)
    assert [index for index, _ in state.undecodable] == [2]
    assert state.last.index == 2


def test_an_image_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    storage = open_founded(RealFileSystem(), str(tmp_path / "n1"), "golden", "n1")
    founding = (b"\x02" + storage.identity.record, 1, 0)
    for index, payload in enumerate([founding[0], b"\x01", b"\x01"], 1):
        storage.journal.append_entry(payload, index, index > 1)
    storage.journal.sync()
    placed = Configurations(b"", [founding]).placed(3)
    writer = storage.snapshots.create(3, 1, b"\x01", 1, placed)
    writer.write(b"no image")
    writer.commit()
    storage.close()
    with pytest.raises(Damaged, match="the image of its snapshot"):
        recover(str(tmp_path / "n1"))
