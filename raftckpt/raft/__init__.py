"""Consensus: the only room that knows PySyncObj."""

from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import (
    PeerStatus,
    RaftStatus,
    ReplicatedLog,
    Role,
    StateMachine,
    Transferred,
)
from raftckpt.raft.settings import RaftConfig

__all__ = [
    "PeerProtocolError",
    "PeerStatus",
    "RaftConfig",
    "RaftNode",
    "RaftStatus",
    "ReplicatedLog",
    "Role",
    "StateMachine",
    "Transferred",
]
