"""Consensus: the only room that knows PySyncObj."""

from raftckpt.raft.configuration import ClusterMember, Configuration
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import (
    PeerInfo,
    PeerStatus,
    RaftStatus,
    ReplicatedLog,
    Role,
    StateMachine,
    Transferred,
)
from raftckpt.raft.settings import RaftConfig

__all__ = [
    "ClusterMember",
    "Configuration",
    "PeerInfo",
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
