from __future__ import annotations

import pytest

from raftckpt.node.founding import PATIENCE_S, Decision, Founding
from raftckpt.raft.links import Hello

VOTERS = ["n1", "n2", "n3"]


def hello(node: str, *, used: bool = False, virgin: bool = True, knows: bool = False) -> Hello:
    return Hello(1, "c", node, 1, "d", used, virgin, knows)


def decide(*hellos: Hello, after: float = 0.0, voters: list[str] | None = None) -> Decision:
    founding = Founding("n3", voters or VOTERS)
    for each in hellos:
        founding.met(each)
    founding.verdict(10.0)
    return founding.verdict(10.0 + after).decision


@pytest.mark.parametrize(
    ("hellos", "after", "decision"),
    [
        ([], 100, Decision.WAIT),
        # a new cluster: at once when all are there, after some patience for a majority
        ([hello("n1"), hello("n2")], 0, Decision.START),
        ([hello("n1")], 0, Decision.WAIT),
        ([hello("n1")], PATIENCE_S, Decision.START),
        # another was faster; its log is still empty
        ([hello("n1", used=True)], PATIENCE_S, Decision.START),
        # a cluster with data: all the others must vouch that we never took part
        ([hello("n1", used=True, virgin=False)], 100, Decision.WAIT),
        ([hello("n1", used=True, virgin=False), hello("n2")], 0, Decision.START),
        # somebody met us: we lost our disk, whatever the rest says
        ([hello("n1", knows=True)], 0, Decision.REFUSE),
        ([hello("n1", used=True, virgin=False, knows=True), hello("n2")], 0, Decision.REFUSE),
        ([hello("n1"), hello("n2", used=True, knows=True)], 100, Decision.REFUSE),
        # strangers have no say
        ([hello("n9"), hello("n3")], 100, Decision.WAIT),
    ],
)
def test_decisions(hellos, after, decision):
    assert decide(*hellos, after=after) is decision


def test_five_voters_need_three_empty_ones():
    voters = ["n1", "n2", "n3", "n4", "n5"]
    assert decide(hello("n1"), after=100, voters=voters) is Decision.WAIT
    assert decide(hello("n1"), hello("n5"), after=100, voters=voters) is Decision.START


def test_reasons_name_the_nodes():
    founding = Founding("n3", VOTERS)
    founding.met(hello("n1", used=True, virgin=False))
    assert "n1 has data" in founding.verdict(0.0).why
    assert "n2" in founding.verdict(0.0).why
