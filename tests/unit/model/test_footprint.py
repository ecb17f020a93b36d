"""What the state takes is counted as it changes, and the same as counting it anew."""

from __future__ import annotations

import random

from raftckpt.model.sessions import HANDLE_BYTES, SESSION_BYTES
from raftckpt.protocol.contract import REPLY_TABLE_BYTES_MAX
from tests.unit.model.driver import NEVER, SECOND, DrivenMachine, DrivenSession, attributes, why


def test_random_changes_count_what_there_is() -> None:
    for seed in range(20):
        rng = random.Random(f"footprint/{seed}")
        cluster = DrivenMachine()
        client = cluster.session()
        for step in range(150):
            change(rng, cluster, client)
            if step % 30 == 29:
                assert cluster.restored().footprint == cluster.machine.footprint
            if rng.random() < 0.02:
                client.do(2)
                client = cluster.session()


def change(rng: random.Random, cluster: DrivenMachine, client: DrivenSession) -> None:
    handle = rng.randrange(1, 4)
    name = rng.choice([b"a", b"b", b"c"])
    data = rng.randbytes(rng.choice([0, 3, 3, 50, 101]))
    due = rng.choice([NEVER, NEVER, cluster.now + SECOND])
    part = [rng.randrange(1, 7), name, rng.randrange(9), data, None, due, None]
    match rng.randrange(12):
        case 0:
            retention = rng.choice([0, SECOND, NEVER])
            client.do(10, rng.choice("xy"), 7, attributes(retention=retention))
        case 1:
            client.do(11, handle)
        case 2:
            client.do(12, rng.choice("xy"))
        case 3:
            client.create(handle, rng.choice([name, None]), data, due)
        case 4:
            client.do(21, handle, name)
        case 5:
            client.do(23, handle, name, data)
        case 6 | 7:
            client.put(handle, name, data)
        case 8:
            client.write(handle, [name, rng.randrange(60), data], [b"a", 1, data])
        case 9:
            client.do(28, handle, part)
        case 10:
            client.do(29, handle, [part, [2, b"d", 0, data, None, NEVER, None]])
        case _:
            cluster.due(rng.choice([0, SECOND]))


def test_nothing_is_left_of_what_ended() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    assert cluster.machine.footprint == SESSION_BYTES
    handle = client.open("x", fields=attributes(retention=0))
    client.create(handle, b"a", b"12345")
    assert cluster.machine.footprint > SESSION_BYTES + HANDLE_BYTES + 5
    client.do(2)
    assert cluster.machine.footprint == 0


def test_unacknowledged_results_have_bounded_bytes() -> None:
    """Refusals that name ids of a kilobyte, never acknowledged: full before the window is."""
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open()
    first = client.sequence
    refused = 0
    while True:
        command = [21, client.id, client.sequence + 1, first, handle, bytes(1000)]
        (result,) = cluster.apply(command)
        if why(result)[1] == "window":
            break
        client.sequence += 1
        refused += 1
        assert why(result)[1] == "section_missing"
    replies = cluster.machine.sessions[client.id].replies
    assert REPLY_TABLE_BYTES_MAX < replies.bytes < REPLY_TABLE_BYTES_MAX + 2000
    assert refused < 1024
    assert cluster.restored().sessions[client.id].replies.bytes == replies.bytes
    # a put that the express lane knows waits, too; an acknowledgement makes room
    (result,) = cluster.apply([24, client.id, client.sequence + 1, first, handle, b"a", b"x"])
    assert why(result)[1] == "window"
    (result,) = cluster.apply(
        [24, client.id, client.sequence + 1, client.sequence, handle, b"a", b"x"]
    )
    assert result.ok
    assert replies.bytes == 0
    assert cluster.restored().footprint == cluster.machine.footprint
