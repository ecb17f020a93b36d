"""May a replica with an empty data directory take part? Pure decision, fed by handshakes.

A replica that lost its disk looks like one that starts for the first time; if it voted again it
could help to forget what it had acknowledged. The empty disk cannot tell, but the others can: each
replica notes durably every peer it met *in use*, before it counts anything that peer says. So:

* somebody knows us as in use: we lost our disk. Refuse (the operator decides: ``--rejoin``).
* all other voters answered and none knows us: nothing we ever said was counted. Start.
* not all answered, but a majority (with us) is empty or has an empty log, and nobody has data: the
  cluster is being founded. Start, after some patience for the silent ones to object.
* otherwise wait.

kill -9 during a first start wedges nothing: a directory counts as in use only once it is complete,
and until then nobody has met us in use. What remains: with a majority rule, a voter that lost its
disk, a second one that was never started yet, and the third one down could found the cluster anew;
that needs two disks without data out of three while the only one with data is away.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from raftckpt.raft.links import Hello

__all__ = ["Decision", "Founding", "Verdict"]

PATIENCE_S = 3.0


class Decision(Enum):
    """What to do with an empty data directory."""

    WAIT = "wait"
    START = "start"
    REFUSE = "refuse"


class Verdict(NamedTuple):
    """The decision, and its reason for people."""

    decision: Decision
    why: str


class Founding:
    """Collects what the other voters say."""

    def __init__(self, node: str, voters: list[str], patience_s: float = PATIENCE_S) -> None:
        self._others = sorted(set(voters) - {node})
        self._majority = len(voters) // 2 + 1
        self._patience_s = patience_s
        self._answers: dict[str, Hello] = {}
        self._majority_since: float | None = None

    def met(self, hello: Hello) -> None:
        """Another voter answered."""
        if hello.node in self._others:
            self._answers[hello.node] = hello

    def verdict(self, now: float) -> Verdict:
        """Decide on what is known at monotonic time ``now``."""
        answers = self._answers
        knowing = sorted(node for node, hello in answers.items() if hello.knows)
        if knowing:
            return Verdict(
                Decision.REFUSE,
                f"{' and '.join(knowing)} met it with data before: a voter that forgot what it "
                "acknowledged could lose the cluster's data",
            )
        missing = [node for node in self._others if node not in answers]
        if not missing:
            return Verdict(Decision.START, "no other replica has met this one before")
        with_data = sorted(node for node, h in answers.items() if h.used and not h.virgin)
        if with_data:
            return Verdict(
                Decision.WAIT,
                f"{' and '.join(with_data)} has data; waiting until {' and '.join(missing)} can "
                "tell, too, that this replica never took part (it lost its disk: --rejoin)",
            )
        if 1 + len(answers) >= self._majority:
            if self._majority_since is None:
                self._majority_since = now
            if now - self._majority_since >= self._patience_s:
                return Verdict(Decision.START, "a majority is empty: a new cluster")
        return Verdict(Decision.WAIT, f"new replica, waiting for {' and '.join(missing)}")
