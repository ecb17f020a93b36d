"""A cluster for those who keep and audit one: replicas that end, are silent, or hold sections."""

from __future__ import annotations

from raftckpt.testing.local_cluster import ClusterNotReady


class FakeCluster:
    """What ``LocalCluster`` tells of three replicas; what is in ``codes`` does not run.

    Attributes:
        codes: exit codes of the replicas that ended.
        fate: exit codes that a replica still has before it.
        started: who was started again.
        waited_for: who was waited for, each time.
        led: whether anybody leads.
    """

    def __init__(self) -> None:
        self.nodes = ["n1", "n2", "n3"]
        self.codes: dict[str, int] = {}
        self.fate: dict[str, list[int]] = {}
        self.started: list[str] = []
        self.waited_for: list[list[str]] = []
        self.led = True

    def exit_code(self, node):
        return self.codes.get(node)

    def log(self, node, lines=None):
        return f"log of {node}"

    def status(self, node, timeout=1.0):
        return None

    def endpoint(self, node):
        return node

    def leader(self, timeout=10.0):
        if not self.led:
            raise ClusterNotReady("no replica leads\n--- n1: its log")
        return "n1"

    def restart(self, node, *, wait=True):
        assert not wait
        assert self.codes.pop(node) is not None
        self.started.append(node)

    def wait_ready(self, timeout=20.0, nodes=None):
        self.waited_for.append(nodes)
        for node in nodes:
            left = self.fate.get(node)
            if left:
                self.codes[node] = left.pop(0)
            if node in self.codes:
                raise ClusterNotReady(f"{node} ended")
