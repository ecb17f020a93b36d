from __future__ import annotations

import pytest

from raftckpt.node.peers import PeerNotes
from raftckpt.storage import Damaged, RealFileSystem


def test_starts_are_counted_and_peers_remembered(tmp_path):
    path = str(tmp_path)
    notes = PeerNotes(RealFileSystem(), path)
    assert (notes.used, notes.epoch, notes.virgin) == (False, 0, True)
    notes.adopt("dir")
    assert (notes.used, notes.epoch, notes.directory) == (True, 1, "dir")
    notes.remember("n2", "x")
    again = PeerNotes(RealFileSystem(), path)
    again.adopt("dir")
    assert again.epoch == 2
    assert again.knows("n2")
    assert not again.knows("n3")


def test_a_known_peer_costs_no_write(tmp_path):
    notes = PeerNotes(RealFileSystem(), str(tmp_path))
    notes.adopt("dir")
    notes.remember("n2", "x")
    before = (tmp_path / "peers").stat().st_mtime_ns, (tmp_path / "peers").stat().st_ino
    notes.remember("n2", "x")
    assert before == ((tmp_path / "peers").stat().st_mtime_ns, (tmp_path / "peers").stat().st_ino)


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_damage_is_refused(tmp_path, cut):
    notes = PeerNotes(RealFileSystem(), str(tmp_path))
    notes.adopt("dir")
    file = tmp_path / "peers"
    data = bytearray(file.read_bytes())
    data[cut if cut > 0 else len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(Damaged):
        PeerNotes(RealFileSystem(), str(tmp_path)).adopt("dir")


def test_a_directory_that_was_replaced_stays_replaced(tmp_path):
    notes = PeerNotes(RealFileSystem(), str(tmp_path))
    notes.adopt("dir")
    for number in range(20):
        notes.remember("n2", f"d{number}")
    again = PeerNotes(RealFileSystem(), str(tmp_path))
    again.adopt("dir")
    assert not again.superseded("n2", "d19")
    assert again.superseded("n2", "d18")
    assert again.superseded("n2", "d4")
    assert not again.superseded("n2", "never seen")
    assert not again.superseded("n3", "d0")
