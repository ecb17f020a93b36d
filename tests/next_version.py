"""The next version of the product: a copy of this tree with one more operation and a level for it.

What every later release will be to this one: an operation and a level that this one does not know,
a number of the contract that is another one from there on, a field more at the end of the first
words on a link, and one more in a message of peers.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import raftckpt

__all__ = ["DOUBLE", "environment", "next_version"]

_ROOT: Final = Path(raftckpt.__file__).parent
_BEFORE: Final = (
    '@operation(Right.WRITE, ("epoch", "revision"), structural=True)\nclass ActiveReplicaSet'
)
_EDITS: Final = {
    "version.py": (("HIGHEST_LEVEL = 2", "HIGHEST_LEVEL = 3"), ('"0.1.0"', '"0.2.0"')),
    "raft/hello.py": (("_body([HELLO, *said])", '_body([HELLO, *said, "and more"])'),),
    "raft/messages.py": (
        (
            "class PreVote(NamedTuple):",
            'class VoteGrantMore(NamedTuple):\n    """A vote with more in it."""\n\n    kind: int\n'
            "    term: int\n    more: str\n\n\nclass PreVote(NamedTuple):",
        ),
        ("    DiskPace: 20,\n", "    DiskPace: 20,\n    VoteGrantMore: 21,\n"),
        (
            "Callable[[Any], Any]]]] = {}",
            "Callable[[Any], Any]]]] = {\n"
            "    VoteGrantMore: (3, lambda m: VoteGrant(KINDS[VoteGrant], m.term))\n}",
        ),
    ),
    "raft/node.py": (
        ("    VoteGrant,\n", "    VoteGrant,\n    VoteGrantMore,\n"),
        ("case VoteGrant():", "case VoteGrant() | VoteGrantMore():"),
        (
            'VoteGrant(KINDS[VoteGrant], message["term"])',
            'VoteGrantMore(KINDS[VoteGrantMore], message["term"], "more")',
        ),
    ),
    "model/state.py": (
        (
            "retention_ns < RETENTION_IMMEDIATE_NS",
            "retention_ns < RETENTION_IMMEDIATE_NS * (3 if self.level >= 3 else 1)",
        ),
    ),
    "protocol/operations.py": (
        (
            _BEFORE,
            '@operation(Right.WRITE, "revision", since=3)\n'
            "class RetentionDouble(Command, tag=39):\n"
            '    """What only the next version knows."""\n\n'
            "    handle: k.Handle\n\n\n" + _BEFORE,
        ),
    ),
    "model/machine.py": (
        (
            "    ops.RetentionSet: lifecycle.retention_set,\n",
            "    ops.RetentionSet: lifecycle.retention_set,\n"
            "    ops.RetentionDouble: lifecycle.retention_double,\n",
        ),
    ),
    "model/lifecycle.py": (
        (
            "def retention_set(",
            "def retention_double(state: State, session: Session, c: ops.RetentionDouble)"
            " -> Result:\n"
            '    """Twice as long."""\n'
            "    opened = session.handles.get(c.handle)\n"
            "    former = opened[0].attributes.retention_ns if opened is not None else 0\n"
            "    twice = ops.RetentionSet(0, 0, 0, c.handle, 2 * former)\n"
            "    return retention_set(state, session, twice)\n\n\n"
            "def retention_set(",
        ),
    ),
}
DOUBLE: Final = """
import sys
import raftckpt
from raftckpt.client.calls import Call, Needs
from raftckpt.protocol import operations as ops
assert hasattr(ops, "RetentionDouble"), raftckpt.__file__
with raftckpt.connect(sys.argv[1], timeout=20) as service:
    with service.open(sys.argv[2], mode="w") as checkpoint:
        message = ops.RetentionDouble(0, 0, 0, checkpoint._opened.handle)
        try:
            checkpoint._run(Call("double", Needs.COMMAND, message), None)
        except raftckpt.CheckpointError as error:
            print(error.code.name, error.reason, error.definite)
        else:
            print("done")
"""
"""Sends the operation: arguments are endpoints and a checkpoint."""


def next_version(path: Path) -> Path:
    """Make the tree below ``path``; returns what PYTHONPATH has to be."""
    tree = path / "next"
    shutil.copytree(_ROOT, tree / "raftckpt", ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in _EDITS.items():
        file = tree / "raftckpt" / name
        text = file.read_text("utf-8")
        for former, latter in edits:
            assert former in text, f"{name} has no {former!r}: follow it here"
            text = text.replace(former, latter)
        file.write_text(text, "utf-8")
    return tree


def environment(tree: Path) -> list[str]:
    """Put before a command: it runs the tree's version."""
    return [
        shutil.which("env") or sys.exit("no env"),
        f"PYTHONPATH={os.fspath(tree)}",
        "PYTHONSAFEPATH=1",
    ]


if __name__ == "__main__":
    next_version(Path(sys.argv[1]))
