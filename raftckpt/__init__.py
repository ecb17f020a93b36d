"""Raft-replicated checkpoint store."""
