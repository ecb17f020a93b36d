"""Who was removed believes it when two say so, and every member says so."""

from __future__ import annotations

import pytest

from raftckpt.raft.messages import KINDS, Removed, decode_body
from raftckpt.raft.port import Removal, RemoveMember
from tests.unit.raft.cluster import Cluster


def test_every_member_tells_who_was_removed(tmp_path) -> None:
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    assert cluster.run(1, until=cluster.settled)
    gone = next(node for node in cluster.names if node != leader)
    told: set[str] = set()

    def noting(sender: str, to: str, body: bytes) -> bool:
        if to == gone and any(type(message) is Removed for message in decode_body(body)):
            told.add(sender)
            return False
        return True

    cluster.on_message = noting
    done = []
    cluster.nodes[leader].change(RemoveMember(gone), done.append)
    cluster.run(2)
    assert [change.done for change in done] == [True]
    assert told == set(cluster.names) - {gone}
    cluster.on_message = None
    liar, other = sorted(told)
    place = cluster.nodes[leader].status().configuration_index
    for sender, ends in ((liar, False), (liar, False), (other, True)):
        info = cluster.nodes[gone]._linked[cluster.directories[sender].identity.directory]
        message = Removed(KINDS[Removed], cluster.nodes[leader].status().term, place)
        if ends:
            with pytest.raises(Removal):
                cluster.nodes[gone]._on_removed(info.directory, message[1:])
        else:
            cluster.nodes[gone]._on_removed(info.directory, message[1:])
            assert "it stops when another member says so" in cluster.nodes[gone].status().waiting
