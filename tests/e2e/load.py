"""Writers that remember what they were promised."""

from __future__ import annotations

import itertools
import threading
from types import TracebackType

import raftckpt
from raftckpt.testing import LocalCluster
from raftckpt.testing.probe import replica_digests

_numbers = itertools.count(1)


class Writers:
    """Threads that put numbered sections and record which were acknowledged.

    Each writer owns the sections ``w<writer>-<number>``; content is the number. Only definite
    failures may be forgotten: everything acknowledged must be found by :meth:`verify`.
    """

    def __init__(self, cluster: LocalCluster, count: int = 4, *, timeout: float = 20.0) -> None:
        self._name = f"load-{next(_numbers)}"  # modules share clusters
        self._cluster = cluster
        self._stop = threading.Event()
        self._timeout = timeout
        self.acknowledged: list[list[int]] = [[] for _ in range(count)]
        self.unknown: list[list[int]] = [[] for _ in range(count)]
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(count)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def total(self) -> int:
        """Acknowledged writes so far."""
        return sum(map(len, self.acknowledged))

    def stop(self) -> None:
        """Stop writing and wait for the last call of every writer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self._timeout + 10)
            assert not thread.is_alive()

    def _run(self, writer: int) -> None:
        try:
            with raftckpt.connect(self._cluster.endpoints, timeout=self._timeout) as service:
                checkpoint = service.open(self._name, create=raftckpt.Attributes())
                number = 0
                while not self._stop.is_set():
                    number += 1
                    try:
                        checkpoint.put(f"w{writer}-{number}", str(number).encode())
                    except raftckpt.CheckpointError as error:
                        if not error.definite:
                            self.unknown[writer].append(number)
                        if isinstance(error, raftckpt.SessionLost):
                            raise
                    else:
                        self.acknowledged[writer].append(number)
        except BaseException as error:
            self.errors.append(error)

    def verify(self) -> None:
        """Find every acknowledged section, and no section that was never written.

        Raises:
            AssertionError: something acknowledged is missing or wrong.
        """
        assert self.errors == []
        with raftckpt.connect(self._cluster.endpoints) as service:
            image = service.open(self._name, mode="r").read_all()
        for writer, acknowledged in enumerate(self.acknowledged):
            found = {
                int(key.partition(b"-")[2]): value
                for key, value in image.items()
                if key.startswith(f"w{writer}-".encode())
            }
            missing = [n for n in acknowledged if found.get(n) != str(n).encode()]
            assert missing == [], f"writer {writer} lost acknowledged writes"
            extra = set(found) - set(acknowledged) - set(self.unknown[writer])
            assert extra == set(), f"writer {writer}: refused or never written, yet there"


def assert_equal_replicas(cluster: LocalCluster, timeout: float = 20.0) -> None:
    """All replicas hold the same state after one and the same log entry."""
    endpoints = {node: cluster.endpoint(node) for node in cluster.nodes}
    index, digests = replica_digests(endpoints, cluster.leader(), timeout=timeout)
    logs = "\n".join(f"--- {node}\n{cluster.log(node, 20)}" for node in cluster.nodes)
    assert None not in digests.values(), f"{digests}\n{logs}"
    assert len(set(digests.values())) == 1, f"replicas differ at {index}: {digests}"
