"""Drive a machine as a leader and its clients would: sequences, log indices, stamps."""

from __future__ import annotations

from typing import Any

from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import Result
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.contract import SA_TIME_MAX
from tests.messages import ask

ALL, ACTIVE, WEAK, COLLOCATED = 1, 2, 4, 8
READ, WRITE, CREATE = 1, 2, 4
SECOND = 10**9
NEVER = SA_TIME_MAX


def attributes(
    flags: int = ALL,
    size: int = 0,
    retention: int = NEVER,
    sections: int = 4,
    section: int = 100,
    section_id: int = 8,
) -> list[int]:
    return [flags, size, retention, sections, section, section_id]


class DrivenMachine:
    """One machine and the cluster time."""

    def __init__(self, machine: CheckpointMachine | None = None) -> None:
        self.machine = machine or CheckpointMachine()
        self.now = 1_000 * SECOND
        self.secrets = 0

    def apply(self, *commands: Any) -> list[Result]:
        payload = encode_batch(self.now, commands)
        return self.machine.apply(self.machine.applied_index + 1, payload)

    def session(self, node: str = "n1", name: str = "app") -> DrivenSession:
        self.secrets += 1
        secret = self.secrets.to_bytes(16, "big")
        (result,) = self.apply([1, 0, 0, 0, secret, name, node, 10 * SECOND, 2 * SECOND])
        assert result.ok
        return DrivenSession(self, result.value[0], secret)

    def due(self, later: int = 0) -> int:
        self.now += later
        (result,) = self.apply([40, 0, 0, 0])
        value: int = result.value
        return value

    def restored(self) -> CheckpointMachine:
        return CheckpointMachine.restore(self.machine.freeze())

    def names(self) -> list[str]:
        return [row.name for row in self.ask(104) if not row.unlinked]

    def ask(self, tag: int, *args: Any) -> Any:
        result = ask(self.machine, None, tag, *args)
        assert result.ok, result
        return result.value[1]


class DrivenSession:
    """A session that sends one request at a time and acknowledges every reply."""

    def __init__(self, cluster: DrivenMachine, number: int, secret: bytes) -> None:
        self.cluster = cluster
        self.id = number
        self.secret = secret
        self.sequence = 0

    def do(self, tag: int, *fields: Any) -> Result:
        self.sequence += 1
        command = [tag, self.id, self.sequence, self.sequence - 1, *fields]
        (result,) = self.cluster.apply(command)
        return result

    def ask(self, tag: int, *args: Any) -> Result:
        return ask(self.cluster.machine, self.id, tag, *args)

    def open(
        self, name: str = "ckpt", flags: int = READ | WRITE | CREATE, fields: Any = None
    ) -> int:
        result = self.do(10, name, flags, fields or (attributes() if flags & CREATE else None))
        assert result.ok, result
        handle: int = result.value[0]
        return handle

    def put(self, handle: int, section_id: bytes, data: bytes | int) -> Result:
        return self.do(24, handle, section_id, data)

    def create(
        self,
        handle: int,
        section_id: bytes | None,
        data: bytes | int = b"",
        expiration: int = NEVER,
        ttl: int | None = None,
    ) -> Result:
        return self.do(20, handle, section_id, data, expiration, ttl)

    def write(self, handle: int, *vector: list[Any]) -> Result:
        return self.do(25, handle, list(vector))

    def all(self, handle: int) -> dict[bytes, bytes]:
        result = self.ask(101, handle)
        assert result.ok, result
        return {section_id: bytes(data) for section_id, data in result.value[1]}


def why(result: Result) -> tuple[int, str, int | None]:
    """(code, reason, position) of a refusal."""
    assert not result.ok, result
    return result.code, result.value.reason, result.value.position
