"""What a process of the generator is told: the load, its share of it, the way to the cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from raftckpt.bench.loads import Load
from raftckpt.client.types import TlsOptions

__all__ = ["Starter", "Task"]


@dataclass(frozen=True)
class Task:
    """The share of one process.

    Attributes:
        load: the whole load.
        clients: numbers of the connections that are this process's.
        checkpoints: names; they are dropped when the last session closes them.
        endpoints, tls, token, name, timeout: see :func:`raftckpt.connect`.
    """

    load: Load
    clients: list[int]
    checkpoints: list[str]
    endpoints: list[str]
    tls: list[str | None] | None
    token: str | None
    name: str
    timeout: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Task:
        """Undo :meth:`to_json`."""
        return cls(**{**values, "load": Load(**values["load"])})

    def tls_options(self) -> TlsOptions | None:
        """The TLS options, if there are any."""
        if self.tls is None:
            return None
        ca, cert, key = self.tls
        return TlsOptions(ca or "", cert, key)


class Starter(Protocol):
    """Tells when to begin."""

    async def begin(self) -> tuple[float, float]:
        """Say that all is prepared and wait: (begin, end) by ``time.perf_counter``."""
