"""What somebody can do who reaches the port for replicas, with and without their secret.

The table of docs/inside/attacks.md says what is expected of each.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
import pytest

from raftckpt.protocol.frames import pack_messages
from raftckpt.raft.hello import REFUSED
from raftckpt.raft.messages import KINDS, Ack, Append, Chunk, Echo, Removed, Standing, TermIs
from raftckpt.storage import Identity, IdentityState, RealFileSystem, SnapshotStore
from raftckpt.testing import LocalCluster
from tests.authority import Authority
from tests.e2e.forged import ForgedReplica, member, name_of, secret_of
from tests.e2e.test_attacks import SMALL, address, attacked, descriptors, limited, snapshots
from tests.waiting import until


def forged(
    cluster: LocalCluster, target: str, *, proven: bool = True, **told: Any
) -> ForgedReplica:
    secret = secret_of(cluster) if proven else b""
    endpoint = cluster.peer_endpoint(target)
    return ForgedReplica(endpoint, name_of(cluster), secret=secret, **told)


def notes(cluster: LocalCluster) -> list[bytes]:
    return [(cluster.node_dir(node) / "peers").read_bytes() for node in cluster.nodes]


def linked(cluster: LocalCluster, node: str) -> bool:
    """Whether a replica knows a leader that another one is."""
    status = cluster.status(node, 5)
    return status is not None and status["leader"] is not None


@pytest.mark.parametrize("tls", [False, True])
def test_silent_connections_to_the_port_of_the_replicas(tls: bool, tmp_path: Path) -> None:
    """Three hundred to each, 256 descriptors: snapshots go on, a replica comes back, all linked."""
    files = Authority(tmp_path).issue("all", "all", dns=("n1", "n2", "n3"))
    settings = SMALL | ({"tls": {"peer": files}} if tls else {})
    with (
        attacked(settings=settings, wrap=limited("-n", 256), restarts=True) as (
            cluster,
            checkpoint,
        ),
        contextlib.ExitStack() as silent,
    ):

        def knock(number: int) -> None:
            for node in cluster.nodes:
                for _ in range(number):
                    sock = silent.enter_context(socket.socket())
                    sock.setblocking(False)
                    sock.connect_ex(address(cluster.peer_endpoint(node)))

        knock(300)
        before = snapshots(cluster)
        follower = next(node for node in cluster.nodes if node != cluster.leader())
        cluster.kill(follower)
        cluster.restart(follower)
        knock(20)
        for number in range(700):
            checkpoint.put("k", b"%d" % number)
        assert all(descriptors(cluster, node) < 256 - 64 for node in cluster.nodes)
        until(
            lambda: all(b > a for a, b in zip(before, snapshots(cluster), strict=True)),
            "a snapshot of each replica",
        )
        assert all(linked(cluster, node) for node in cluster.nodes)


@pytest.mark.parametrize("proven", [False, True])
def test_nobody_is_believed_to_be_a_replica_that_restarts(proven: bool) -> None:
    """Without the secret, or with another one: nothing is noted, and the real one comes back."""
    with attacked(restarts=True) as (cluster, checkpoint):
        cluster.kill("n3")
        told = member(cluster, "n3") | {"incarnation": 1000}
        before = notes(cluster)
        for node in ("n1", "n2"):
            endpoint, secret = cluster.peer_endpoint(node), b"another" * 5 if proven else b""
            with ForgedReplica(endpoint, name_of(cluster), secret=secret, **told) as liar:
                if proven:  # it does not care what the other side can prove
                    liar.handshake.receive(liar.hear()[0])
                    liar.handshake.accept()
                else:
                    liar.ready()
                assert liar.closed()
        assert notes(cluster) == before
        cluster.restart("n3")
        checkpoint.put("k", b"v")
        assert "secret" in cluster.log("n1")


def test_the_secret_alone_poses_as_nobody_who_was_met() -> None:
    """In the name and directory of a replica that restarts, with a later start than it will have.

    Another replica that has not its directory knows as much. The real one comes back.
    """
    with attacked(restarts=True) as (cluster, checkpoint):
        cluster.kill("n3")
        before = notes(cluster)
        for seed in (b"", member(cluster, "n1")["seed"]):
            told = member(cluster, "n3") | {"incarnation": 10**6, "seed": seed}
            for node in ("n1", "n2"):
                with forged(cluster, node, **told) as liar:
                    refusal = liar.link()
                    assert refusal is not None
                    assert "mark" in refusal.why
                    assert not refusal.fatal
        assert notes(cluster) == before
        cluster.restart("n3")
        checkpoint.put("k", b"v")
        until(lambda: linked(cluster, "n3"), "n3 among the others")
        with forged(cluster, "n3", **member(cluster, "n1") | {"seed": b""}) as liar:
            refusal = liar.link()
            assert refusal is not None, "a replica that is met again asks for marks, too"


def test_a_refusal_by_a_stranger_ends_nobody() -> None:
    """Neither who dials nor who sits on the port of a dead replica may say that this start ends."""
    refusal = pack_messages([[REFUSED, "move your data directory away", True]])
    with attacked(restarts=True) as (cluster, checkpoint):
        cluster.kill("n3")
        with socket.create_server(address(cluster.peer_endpoint("n3"))) as trap:
            trap.settimeout(20)
            for _ in range(2):  # both dial it
                dialled, _ = trap.accept()
                with dialled:
                    dialled.sendall(refusal)
                    dialled.recv(1 << 16)
        for node in ("n1", "n2"):
            with forged(cluster, node, proven=False) as liar:
                liar.socket.sendall(refusal)
                assert liar.closed()
        checkpoint.put("k", b"v")
        assert cluster.pid("n1") is not None
        assert cluster.pid("n2") is not None
        cluster.restart("n3")


def test_a_link_is_not_stolen() -> None:
    """In the name of a replica that has a link, and of its own, with a later start than it has."""
    with attacked() as (cluster, checkpoint):
        before = notes(cluster)
        for name in ("n1", "n2"):
            told = member(cluster, name) | {"incarnation": 99}
            with forged(cluster, "n2", proven=False, **told) as liar:
                liar.ready()
                assert liar.closed()
        assert notes(cluster) == before
        assert "disconnected" not in cluster.log("n2")
        checkpoint.put("k", b"v")


@pytest.mark.parametrize("says", ["OURS/client/n3", "another/replica/n3", "OURS/replica/n2"])
def test_a_certificate_is_good_for_its_role_cluster_and_node(says: str, tmp_path: Path) -> None:
    """Signed by the authority of the replicas, CN=n3, and for something else: no replica n3."""
    authority = Authority(tmp_path)
    cluster = LocalCluster(3, faults=False, settings={"tls": {"peer": {
        "cert": str(tmp_path / "all.pem"), "key": str(tmp_path / "all.key"),
        "ca": str(authority.path),
    }}})  # fmt: skip
    try:
        name = name_of(cluster)
        authority.issue(
            "all", "n3", uris=[f"raftckpt://{name}/replica/{node}" for node in cluster.nodes]
        )
        cluster.start()
        cluster.wait_ready()
        cluster.kill("n3")
        before = notes(cluster)
        uri = "raftckpt://" + says.replace("OURS", name)
        files = authority.issue("liar", "n3", uris=[uri], dns=["n3"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(files["ca"])
        context.load_cert_chain(files["cert"], files["key"])
        told = member(cluster, "n3") | {"incarnation": 99}
        for node in ("n1", "n2"):
            with ForgedReplica(cluster.peer_endpoint(node), name, tls=context, **told) as liar:
                refusal = liar.link()
                assert refusal is not None
                assert f"its certificate is for {uri}" in refusal.why
        assert notes(cluster) == before
        cluster.restart("n3")
    finally:
        cluster.stop()


def test_a_forged_voter_is_not_part_of_a_founding() -> None:
    cluster = LocalCluster(3, faults=False)
    try:
        cluster.start("n1", "n2")
        until(lambda: "waiting for n3" in cluster.log("n1"), "n1 waits for n3")
        for node in ("n1", "n2"):
            with forged(cluster, node, proven=False, node="n3") as liar:
                liar.ready()
                assert liar.closed()
        assert "the founding is being written down" not in cluster.log("n1")
        cluster.start("n3")
        cluster.wait_ready()
        members = cluster.status("n1", 5)
        assert members is not None
        assert member(cluster, "n3")["directory"] in str(members)
    finally:
        cluster.stop()


def chunk(term: int, data: bytes, **fields: Any) -> list[Any]:
    whole: dict[str, Any] = {
        "kind": KINDS[Chunk], "term": term, "round": 1, "snapshot": "0011223344556677",
        "log_index": 10**6, "index_term": term, "total": len(data), "offset": 0,
        "crc": google_crc32c.value(data), "data": data,
    }  # fmt: skip
    return list((whole | fields).values())


def lies(term: int, last: int) -> dict[str, list[Any]]:
    """Well-formed messages, each from a member with the secret, each a lie."""
    top = (1 << 64) - 1
    found: dict[str, list[Any]] = {
        "a commit index beyond everything": [KINDS[Append], term + 1, 1, top, last, term, []],
        "entries far beyond the log": [
            KINDS[Append], term + 1, 1, 0, 1 << 55, term, [[b"\x01", (1 << 55) + 1, term]],
        ],
        "an answer to a round that was not": [KINDS[Echo], term, 1 << 60, 0],
        "entries held that are not there": [KINDS[Ack], term, 1, True, False, 1 << 50, 0],
        "a wall clock of the year 2554": [KINDS[Echo], term, 1, top],
        "a removal": [KINDS[Removed], term + 1, last + 1],
        "a removal by everybody ever": [KINDS[Removed], top, top],
        "a configuration of the far future": [KINDS[Standing], top, top],
        "a snapshot without end": chunk(term + 1, b"x" * 1000, total=1 << 62),
        "a snapshot beyond its end": chunk(term + 1, b"x" * 1000, offset=1 << 49),
        "a snapshot that is none": chunk(term + 1, b"x" * 1000),
        "a snapshot with a path for a name": chunk(term + 1, b"x" * 10, snapshot="../../identity"),
        "no kind": [77],
        "a kind that is no number": ["x"],
    }  # fmt: skip
    for power in (32, 48, 56, 63, 64):
        found[f"term 2^{power}"] = [KINDS[TermIs], min(top, (1 << power) + term + 1)]
    # the last one: who says so is not listened to any more
    found["an append in the leader's own term"] = [KINDS[Append], term, 1, 0, 0, 0, []]
    return found


def no_state(cluster: LocalCluster, path: Path, term: int) -> list[Any]:
    """A whole snapshot of this founding, with all its checksums, and no image in it."""
    text = (cluster.node_dir("n1") / "identity").read_text("utf-8")
    told = json.loads(text.rpartition("}")[0] + "}")
    identity = Identity("", "", "", 0, IdentityState.MEMBER, founding=told["founding"])
    placed = msgpack.packb([1, 0, bytes.fromhex(told["record"])], use_bin_type=True)
    store = SnapshotStore(RealFileSystem(), str(path / f"{term}"), identity.snapshot_owner)
    writer = store.create(10**6, term, b"\x01", term, placed)
    writer.write(b"no image of a state")
    meta = writer.commit()
    data = store.read(meta, 0, meta.size)
    store.close()
    return chunk(term, data, snapshot=meta.id, crc=meta.crc)


def test_a_snapshot_that_is_no_state_replaces_none(tmp_path: Path) -> None:
    """It is whole, of this founding, and its sender leads: the state and the log stay."""
    with attacked(restarts=True) as (cluster, checkpoint):
        checkpoint.put("k", b"before")
        cluster.kill("n3")
        told = member(cluster, "n3") | {"incarnation": 2, "term": 1 << 20, "last_index": 1 << 20}
        for node, term in (("n1", 50), ("n2", 5000)):  # the others go on from there
            with forged(cluster, node, **told) as liar:
                assert liar.link() is None
                liar.say(no_state(cluster, tmp_path / node, term))
                until(lambda node=node: "snapshot_refused" in cluster.log(node), "refused")
        checkpoint.put("more", b"after")
        for node in ("n1", "n2"):
            cluster.kill(node)
        cluster.start("n1", "n2")
        cluster.wait_ready(nodes=("n1", "n2"))
        assert checkpoint.read("k") == b"before"
        shutil.rmtree(cluster.node_dir("n3"))
        cluster.restart("n3", rejoin=True)


def test_no_message_of_a_member_is_of_lasting_harm() -> None:
    """Each lie to leader and follower in the name of a dead member; then all start again."""
    with attacked(restarts=True) as (cluster, checkpoint):
        cluster.kill("n3")
        starts = 1
        for what in lies(1, 1):
            for target in ("n1", "n2"):
                status = cluster.status(target, 10)
                assert status is not None, what
                starts += 1
                # more than was counted of it, so that it is not taken for an older copy
                told = member(cluster, "n3") | {
                    "incarnation": starts, "term": 1 << 20, "last_index": 1 << 20,
                }  # fmt: skip
                with forged(cluster, target, **told) as liar:
                    assert liar.link() is None, what
                    liar.say(lies(status["term"], status["last"])[what])
                    liar.drain(0.15)
            checkpoint.put("k", what.encode())
            assert cluster.pid("n1") is not None, what
            assert cluster.pid("n2") is not None, what
        terms = [status["term"] for node in ("n1", "n2") if (status := cluster.status(node, 10))]
        assert max(terms) < 1 << 40
        for node in ("n1", "n2"):
            cluster.kill(node)
        cluster.start("n1", "n2")
        cluster.wait_ready(nodes=("n1", "n2"))
        assert checkpoint.read("k") == what.encode()
        # who has its directory can claim more starts than the real one had: as after a lost disk
        shutil.rmtree(cluster.node_dir("n3"))
        cluster.restart("n3", rejoin=True)


def test_a_committed_entry_that_nobody_can_read_does_nothing_anywhere() -> None:
    """Somebody with the secret leads for a moment: all say so, nobody ends, nor after a restart."""
    with attacked(restarts=True) as (cluster, checkpoint):
        checkpoint.put("k", b"before")
        cluster.kill("n3")
        checkpoint.put("k", b"before")  # both have an entry of who leads now
        status: dict[str, Any] = {"last": 0}

        def settled() -> bool:  # what is told is told again for a moment
            status.update(cluster.status("n1", 10) or {})
            return bool(status["last"] >= 5 and status["leader"] in ("n1", "n2"))

        until(settled, "the log of n1")
        term, last = status["term"] + 5, status["last"]
        told = member(cluster, "n3") | {"incarnation": 2, "term": term, "last_index": 1 << 20}
        garbage = [
            KINDS[Append], term, 1, last + 1, last, status["term"],
            [[b"\x00no batch", last + 1, term]],
        ]  # fmt: skip
        with contextlib.ExitStack() as liars:
            for node in ("n1", "n2"):
                liar = liars.enter_context(forged(cluster, node, **told))
                assert liar.link() is None
                liar.say(garbage)
            for node in ("n1", "n2"):
                until(lambda node=node: "undecodable" in cluster.log(node), f"{node} says so")
        checkpoint.put("more", b"after")
        for node in ("n1", "n2"):
            found = cluster.status(node, 10)
            assert found is not None
            assert "could not be read" in str(found["alarms"])
            cluster.kill(node)
        cluster.start("n1", "n2")
        cluster.wait_ready(nodes=("n1", "n2"))
        assert checkpoint.read("k") == b"before"
        assert checkpoint.read("more") == b"after"
        shutil.rmtree(cluster.node_dir("n3"))
        cluster.restart("n3", rejoin=True)
