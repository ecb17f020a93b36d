"""A naive cluster and network for the client core: fake time, a seeded random order of events.

The cluster implements the rules of sessions in the plainest way (a dict per session, a list of
effects) and loses, delays and repeats what a real one may lose, delay and repeat.
"""

from __future__ import annotations

from random import Random
from typing import Any

from raftckpt.client.calls import Call
from raftckpt.client.core import ClientCore, CoreConfig
from raftckpt.protocol.frames import FrameDecoder, pack_messages
from tests.messages import check_request, unpack_messages

NOT_EXIST = 12
WINDOW = 4096


class Session:
    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.last = 0
        self.answered = 0
        self.replies: dict[int, list[Any]] = {}
        self.stages: dict[int, bytes] = {}


class NaiveConnection:
    """One TCP connection: a queue of bytes each way; ``up`` until someone cuts it."""

    def __init__(self, number: int, replica: int) -> None:
        self.number = number
        self.replica = replica
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.decoder = FrameDecoder()
        self.session = 0
        self.open = True
        self.greeted = False


class NaiveCluster:
    """Replicas that agree by magic; only the leader proposes, ``commit`` applies."""

    def __init__(self, random: Random, replicas: int = 3) -> None:
        self.random = random
        self.count = replicas
        self.leader: int | None = 0
        self.deaf: set[int] = set()
        self.sessions: dict[int, Session] = {}
        self.effects: list[tuple[int, int, bytes]] = []
        """(session, sequence, data) in the order of application."""
        self.pending: list[tuple[NaiveConnection, list[Any]]] = []
        self.waiting: list[tuple[NaiveConnection, list[Any]]] = []
        self.next_session = 0
        self.busy = 0.0
        self.early = 0.0
        self.handles_open = 0
        self.handles_closed = 0
        self.staged_bytes_max = 0

    # --- the state machine

    def apply(self, session: Session, number: int, command: list[Any]) -> list[Any]:
        """Return [code, value] or [code, [reason, detail, index]]."""
        sequence, answered = command[2], command[3]
        if sequence <= session.answered:
            return [2, ["answered", None, None]]
        if sequence <= session.last:
            return session.replies[sequence]
        if sequence > session.last + 1:
            return [6, ["gap", None, None]]
        result = self.execute(session, number, command)
        session.last = sequence
        if answered > session.answered:
            session.answered = answered
            for old in [old for old in session.replies if old <= answered]:
                del session.replies[old]
        session.replies[sequence] = result
        assert len(session.replies) <= WINDOW
        return result

    def execute(self, session: Session, number: int, command: list[Any]) -> list[Any]:
        tag, fields = command[0], command[4:]
        if tag == 26:
            stage, offset, data = fields
            if offset != len(session.stages.get(stage, b"")):
                return [18, ["stage", None, None]]
            session.stages[stage] = session.stages.get(stage, b"") + data
            staged = sum(map(len, session.stages.values()))
            self.staged_bytes_max = max(self.staged_bytes_max, staged)
            return [1, None]
        if tag == 10:
            self.handles_open += 1
            return [1, [100 + self.handles_open, 1, False, [1, 4, 4, 4, 4, 4], len(self.effects)]]
        if tag == 11:
            if not fields[0]:
                return [9, ["handle", None, None]]
            self.handles_closed += 1
            return [1, None]
        assert tag in (23, 24), command
        handle, _, data = fields
        if isinstance(data, int):
            data = session.stages.pop(data, None)
        if handle == 0:
            return [9, ["handle", None, None]]
        if data is None:
            return [18, ["stage", None, None]]
        if data.startswith(b"refuse"):
            return [NOT_EXIST, ["section_missing", b"x", None]]
        self.effects.append((number, command[2], data.rstrip(b".")))
        return [1, len(self.effects)]

    # --- the replicas

    def receive(self, connection: NaiveConnection) -> None:
        data = bytes(connection.to_server)
        connection.to_server.clear()
        for body in connection.decoder.feed(data):
            for message in unpack_messages(body):
                problem = check_request(message)
                assert problem is None, (problem, message)
                self.handle(connection, message)

    def handle(self, connection: NaiveConnection, message: list[Any]) -> None:
        tag, number = message[0], message[1]
        leads = connection.replica == self.leader
        if tag == 200:
            # a follower may be behind in what it knows
            known = self.leader if self.random.random() < 0.8 else self.random.randrange(self.count)
            if not leads and known == connection.replica:
                known = None
            self.reply(
                connection,
                number,
                {
                    "version": 1,
                    "node": f"n{connection.replica}",
                    "cluster": "c",
                    "leader": None if known is None else f"n{known}",
                    "endpoints": {f"n{i}": f"h:{i + 1}" for i in range(self.count)},
                    "product": "0",
                },
            )
        elif tag == 121:
            self.reply(connection, number, {"revision": len(self.effects)})
        elif not leads:
            where = None if self.leader is None else f"h:{self.leader + 1}"
            self.refuse(connection, number, 6, "not_leader", where)
        elif self.random.random() < self.busy:
            self.refuse(connection, number, 6, "busy", None)
        elif tag == 1:
            known = [key for key, value in self.sessions.items() if value.secret == message[4]]
            if not known:
                self.next_session += 1
                known = [self.next_session]
                self.sessions[known[0]] = Session(message[4])
            id_ = known[0]
            connection.session = id_
            self.reply(connection, number, [id_])
        elif tag == 201:
            if message[2] not in self.sessions:
                self.refuse(connection, number, 9, "session", None)
            else:
                connection.session = message[2]
                self.reply(connection, number, [self.sessions[message[2]].last, 10**10])
        elif tag == 202:
            if connection.session not in self.sessions:
                self.refuse(connection, number, 9, "session", None)
            else:
                self.reply(connection, number, [len(self.effects)])
        elif tag == 100:
            self.waiting.append((connection, message))
        else:
            self.propose(connection, message)

    def propose(self, connection: NaiveConnection, message: list[Any]) -> None:
        session = self.sessions.get(connection.session)
        if session is None:
            self.refuse(connection, message[1], 9, "session", None)
            return
        proposed = [
            command[2] for other, command in self.pending if other.session == connection.session
        ]
        highest = max([session.last, *proposed])
        if message[2] > highest + 1:
            self.refuse(connection, message[1], 6, "gap", None)
            return
        self.pending.append((connection, message))
        new = message[2] == highest + 1
        data = message[6] if message[0] == 24 else None
        early = new and isinstance(data, bytes) and data.startswith(b"async")
        if early and self.random.random() < self.early:
            self.send(connection, [1, message[1]])

    def commit(self) -> None:
        """Commit all that is pending; answer reads."""
        pending, self.pending = self.pending, []
        if self.random.random() < 0.3:
            pending = self.shuffled_by_session(pending)
        for connection, message in pending:
            session = self.sessions.get(connection.session)
            if session is None:
                self.refuse(connection, message[1], 9, "session", None)
                continue
            code, value = self.apply(session, connection.session, message)
            if code == 1:
                self.reply(connection, message[1], value)
            else:
                self.send(connection, [0, message[1], code, value, True])
        waiting, self.waiting = self.waiting, []
        for connection, message in waiting:
            session = self.sessions.get(connection.session)
            if session is None:
                self.refuse(connection, message[1], 9, "session", None)
            elif session.last < message[2]:
                self.waiting.append((connection, message))
            elif connection.replica != self.leader:
                self.refuse(connection, message[1], 6, "not_leader", None)
            else:
                seen = b"\n".join(data for _, _, data in self.effects)
                self.reply(connection, message[1], [len(self.effects), [seen]])

    def shuffled_by_session(self, pending: list[Any]) -> list[Any]:
        """Several sessions' commands may be interleaved otherwise; each keeps its order."""
        queues: dict[int, list[Any]] = {}
        for item in pending:
            queues.setdefault(item[0].session, []).append(item)
        mixed = []
        while queues:
            key = self.random.choice(sorted(queues))
            mixed.append(queues[key].pop(0))
            if not queues[key]:
                del queues[key]
        return mixed

    def change_leader(self, leader: int | None) -> None:
        """The old leader's pending entries: a prefix is committed by the new one, the rest lost."""
        cut = self.random.randrange(len(self.pending) + 1)
        kept, lost = self.pending[:cut], self.pending[cut:]
        self.pending = []
        for connection, message in kept:
            session = self.sessions.get(connection.session)
            if session is not None:
                self.apply(session, connection.session, message)
            if self.random.random() < 0.5:
                self.refuse(connection, message[1], 6, "leadership_lost", None, definite=False)
        for connection, message in lost:
            if self.random.random() < 0.5:
                self.refuse(connection, message[1], 6, "leadership_lost", None, definite=False)
        self.leader = leader

    # --- replies

    def reply(self, connection: NaiveConnection, number: int, value: Any) -> None:
        self.send(connection, [0, number, 1, value])

    def refuse(
        self,
        connection: NaiveConnection,
        number: int,
        code: int,
        reason: str,
        detail: Any,
        definite: bool = True,
    ) -> None:
        self.send(connection, [0, number, code, [reason, detail, None], definite])

    def send(self, connection: NaiveConnection, message: list[Any]) -> None:
        if connection.open and connection.replica not in self.deaf:
            connection.to_client += pack_messages([message])


class NaiveWorld:
    """One client core on the naive cluster, in fake time."""

    def __init__(self, seed: int, **config: Any) -> None:
        self.random = Random(seed)
        self.cluster = NaiveCluster(self.random)
        self.now = 100.0
        self.core = ClientCore(
            CoreConfig(client_name="test", **config),
            ["h:1", "h:2", "h:3"],
            secret=self.random.randbytes(16),
            jitter=self.random.random,
        )
        self.connections: dict[int, NaiveConnection] = {}
        self.calls: list[Call] = []
        self.connects = 0
        self.unreachable: set[int] = set()
        self.finished_at: dict[Call, float] = {}

    def start(self, call: Call, timeout: float) -> Call:
        self.calls.append(call)
        self.core.start(call, self.now + timeout, self.now)
        self.settle()
        return call

    def settle(self) -> None:
        """What a face does after every input."""
        for _ in range(100):
            wanted = self.core.wanted()
            for number in [number for number in self.connections if number not in wanted]:
                self.connections.pop(number).open = False
            fresh = [number for number in wanted if number not in self.connections]
            if not fresh:
                for number, connection in self.connections.items():
                    connection.to_server += self.core.data_to_send(number)
                break
            number = fresh[0]
            self.connects += 1
            replica = int(wanted[number].rpartition(":")[2]) - 1
            if replica in self.unreachable:
                self.core.connection_lost(number, "refused", self.now)
            else:
                self.connections[number] = NaiveConnection(number, replica)
                self.core.connected(number, self.now)
        else:
            raise AssertionError("the core spins")
        for call in self.core.take_completed():
            assert call not in self.finished_at, "completed twice"
            self.finished_at[call] = self.now

    def deliver_to_server(self, everything: bool = False) -> None:
        for connection in list(self.connections.values()):
            if not connection.to_server:
                continue
            if connection.replica in self.cluster.deaf:
                continue
            if not everything and self.random.random() < 0.3:
                size = self.random.randrange(1, len(connection.to_server) + 1)
                part = connection.to_server[size:]
                del connection.to_server[size:]
                self.cluster.receive(connection)
                connection.to_server += part
            else:
                self.cluster.receive(connection)

    def deliver_to_client(self, everything: bool = False) -> None:
        for number, connection in list(self.connections.items()):
            size = len(connection.to_client)
            if not size or not self.core.hears(number):
                continue
            if not everything and self.random.random() < 0.3:
                size = self.random.randrange(1, size + 1)
            data = bytes(connection.to_client[:size])
            del connection.to_client[:size]
            self.core.data_received(number, data, self.now)
            self.settle()

    def cut(self) -> None:
        """Reset the connection; some of what was under way may still arrive at the replica."""
        target = self.core.target()
        connection = None if target is None else self.connections.get(target[0])
        if connection is None:
            return
        arrives = connection.to_server and connection.replica not in self.cluster.deaf
        if arrives and self.random.random() < 0.5:
            self.cluster.receive(connection)
        connection.open = False
        del self.connections[connection.number]
        self.core.connection_lost(connection.number, "reset", self.now)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass; the core gets its ticks when it asked for them."""
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.core.next_deadline()
            if deadline > end:
                break
            self.now = max(self.now, deadline)
            self.core.tick(self.now)
            self.settle()
        else:
            raise AssertionError("the core asks for ticks without end")
        self.now = end

    def heal(self, seconds: float) -> None:
        """Everything works from now on."""
        self.cluster.deaf.clear()
        self.unreachable.clear()
        self.cluster.busy = 0.0
        if self.cluster.leader is None:
            self.cluster.leader = 0
        for _ in range(int(seconds / 0.01)):
            self.deliver_to_server(everything=True)
            self.cluster.commit()
            self.deliver_to_client(everything=True)
            self.advance(0.01)
