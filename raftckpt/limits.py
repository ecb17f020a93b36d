"""Every limit that a node may choose, by name. Reaching one is a typed error, never a hang.

What all replicas must share is in :mod:`raftckpt.protocol.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# units
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000

# --- names and values -------------------------------------------------------------------
TOKEN_BYTES_MAX: Final = 4096
"""Of a token that a client shows. Ours have 61; the rest is room for those of others, which are
longer."""
ADDRESS_BYTES_MAX: Final = 300
"""Of an address that is told: a name of DNS has 253 at most, with a port 259."""

# --- SA Forum library --------------------------------------------------------------------
SAF_PENDING_CALLBACKS_MAX: Final = 100_000
"""Callbacks of one initialization that wait for dispatch or for their outcome."""
SAF_PENDING_CHANGES_MAX: Final = 64
"""Callbacks that wait for dispatch, above which changes are left with their tracker."""

# --- wire --------------------------------------------------------------------------------
ENTRY_PAYLOAD_BYTES_MAX: Final = 1 * MIB
"""Most payload one Raft entry carries; a larger write travels as staged chunks."""
FRAME_BYTES_MAX: Final = 2 * MIB
"""Largest frame body either side accepts."""
FRAGMENT_BYTES: Final = 256 * KIB
"""A reply longer than this is streamed as fragments of about this size."""
REPLY_BYTES_MAX: Final = 1 << 32
"""Longest reply that a client puts together of fragments. More than memory has: it bounds what a
replica that is broken, or lies, can have it collect."""
PAGE_ROWS_MAX: Final = 10_000
"""Most rows one page of a listing may have."""
MESSAGES_PER_FRAME_MAX: Final = 16_384
"""Four times what a connection may have on its way: the rest would only wait."""
GREETING_BYTES_MAX: Final = 64 * KIB
"""Largest frame body before a client has said who it is."""
CONNECTION_INFLIGHT_MAX: Final = 4096
"""Requests of one connection the replica holds before it stops reading from it."""
CONNECTION_INFLIGHT_BYTES_MAX: Final = 16 * MIB
"""Of the same in bytes: a quarter of PENDING_BYTES_MAX, so that four of them are needed to fill
it."""
CONNECTION_SEND_BYTES_MAX: Final = 4 * MIB
"""Unsent reply bytes of one connection above which the replica stops reading from it."""
HANDSHAKE_SECONDS_MAX: Final = 5.0
"""For TLS and for HELLO behind it."""
STRANGERS_MAX: Final = 512
"""Connections that have not said HELLO; one more, and the oldest of them is closed."""
DESCRIPTORS_RESERVED: Final = 128
"""Of the process, for its files, its peers and its log: clients get what the limit leaves."""

# --- tracking ----------------------------------------------------------------------------
HISTORY_BYTES_MAX: Final = 64 * MIB
"""Of the latest changes a replica keeps for trackers that come back (the newest entry always)."""
HISTORY_CHANGES_MAX: Final = 262_144
"""The same in changes, for small ones: 256 bytes of HISTORY_BYTES_MAX each."""
TRACKERS_PER_CONNECTION_MAX: Final = 64
"""A guess: clients use one each. With double 32 connections could have them all."""
TRACKERS_MAX: Final = 4096
"""Of a replica."""
TRACKERS_PER_ADDRESS_MAX: Final = TRACKERS_MAX // 2
"""Of a replica for one IP address: the other half is for others."""
SESSIONS_PER_ADDRESS_MAX: Final = 50_000
"""Of those that were opened or attached from one IP address while this leader leads."""
TRACKER_SYNCS_MAX: Final = 64
"""TRACK_SYNC of one tracker that may wait at once."""
TRACK_WAIT_SECONDS_MAX: Final = 2.0
"""For a replica to apply what a client has seen elsewhere; then it is to try another one."""
TRACK_IMAGES_MAX: Final = 8
"""Images of many sections on their way to trackers at once: each may keep a past state alive."""
TRACK_CUT_OFF_SECONDS: Final = 2.0
"""Without a word from a leader; then a follower tells its trackers to look elsewhere."""
TRACK_STALL_SECONDS_MAX: Final = 10.0
"""Without reading, while others wait for their image; then the connection is closed."""
TRACKER_BUFFER_BYTES_MAX: Final = 8 * MIB
"""Changes a client's tracker holds before it stops reading; it goes on at half."""
TRACKER_BUFFER_CHANGES_MAX: Final = 65_536
"""The same in changes, for small ones: 128 bytes of TRACKER_BUFFER_BYTES_MAX each."""

# --- copies ------------------------------------------------------------------------------
COPIES_MAX: Final = 2
"""Whole states that clients read from a replica at once: each keeps a past state alive."""
COPY_PIECES_ASKED_MAX: Final = 16
"""Pieces of one that may be asked for before the first of them is sent."""
COPY_IDLE_SECONDS_MAX: Final = 60.0
"""Without a question for the next piece; then the state is let go."""
COPY_YIELDS_SECONDS: Final = 5.0
"""The same while another client wants to begin."""

# --- replica -----------------------------------------------------------------------------
PENDING_COMMANDS_MAX: Final = 65_536
"""Commands proposed and not yet applied, above which the leader answers TRY_AGAIN."""
PENDING_BYTES_MAX: Final = 64 * MIB
"""The same in bytes: the longest write (64 MiB), or as many commands as above of a KiB each."""
PENDING_SHARED: Final = 4096
"""Commands on their way that connections share. Each may have as many as are left for others: one
alone half of them, of nine each a tenth, and who comes next as many again. (PENDING_BYTES_MAX is
shared alike.)"""
PEER_QUEUE_BYTES_MAX: Final = 32 * MIB
"""Unsent to one peer, above which its link is broken: four times what a leader sends it unasked."""
PEER_CONNECTIONS_MAX: Final = 96
"""On the port for replicas, links included."""
PEER_CONNECTIONS_PER_ADDRESS_MAX: Final = 64
"""Of them from one IP address: two thirds, so that another one gets in."""
PEER_STRANGERS_MAX: Final = 48
"""Of them before their handshake is over; one more, and the oldest of them is closed."""
PEER_LINKS_MAX: Final = 64
"""Twice as many as members."""
BEHIND_ENTRIES_MAX: Final = 10_000
"""Committed and not applied, above which a replica counts as behind. Entries are batches: several
seconds of full load."""
CERTIFICATE_DAYS_SOON: Final = 14
"""Before its end a certificate is a warning: two weeks are enough to find who issues it."""
CERTIFICATE_DAYS_NOW: Final = 2
"""Before its end it is wrong, and an alarm: a weekend."""
JOURNAL_SEGMENT_BYTES: Final = 64 * MIB
"""Of a file of the journal. Longer ones make the reserve on the disk larger, and are freed later;
shorter ones make more files, and more syncs of the directory."""
SNAPSHOT_CHUNK_BYTES: Final = 256 * KIB
"""Of a snapshot on its way to a peer: 21 ms of a link of 100 Mbit/s, less than half of a
heartbeat."""


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What a replica takes on: the section ``limits`` of cluster.yaml.

    Attributes:
        connections: of all clients at once.
        connections_per_address: of them from one IP address, so that nobody locks the others out.
        receive_bytes: of frames that have begun to arrive, over all connections.
        send_bytes: that wait for clients which do not read, over all connections.
        data_bytes: memory of the data, above which a leader admits no more; 0: by the memory that
            there is.
    """

    connections: int = 4096
    connections_per_address: int = 2048
    receive_bytes: int = 64 * MIB
    send_bytes: int = 256 * MIB
    data_bytes: int = 0
