"""Every limit of the product, by name. Reaching one is a typed error, never growth or a hang."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000

SA_TIME_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF
"""SA_TIME_END / SA_TIME_MAX: "never" as a time, "for ever" as a duration (nanoseconds)."""

# --- names and values -------------------------------------------------------------------
CHECKPOINT_NAME_BYTES_MAX: Final = 2048
SECTION_ID_BYTES_MAX: Final = 1024
"""Upper bound of the creation attribute max_section_id_size."""
SESSION_NAME_BYTES_MAX: Final = 256
NODE_ID_BYTES_MAX: Final = 64
SESSION_SECRET_BYTES: Final = 16
TOKEN_BYTES_MAX: Final = 4096
WRITE_BYTES_MAX: Final = 64 * MIB
"""Most bytes one write element, overwrite or initial data may carry (CKPT-SPEC: NO_RESOURCES)."""
SECTION_BYTES_MAX: Final = 1024 * MIB
"""Longest section, whatever max_section_size allows: one byte far out must not make a huge one."""
VECTOR_ELEMENTS_MAX: Final = 4096
SECTIONS_MAX: Final = 1 << 32
CORRUPTED_SECTIONS_MAX: Final = 1024
"""Most sections of a checkpoint that fault injection may hold in the state CORRUPTED."""
PAGE_BYTES: Final = 64 * KIB
"""Sections longer than this are kept as pages of this size (copy on write)."""

# --- defaults of the creation attributes (fixed for ever) ---------------------------------
DEFAULT_MAX_SECTIONS: Final = 1 << 20
DEFAULT_MAX_SECTION_SIZE: Final = 64 * MIB
DEFAULT_MAX_SECTION_ID_SIZE: Final = 255
RETENTION_IMMEDIATE_NS: Final = 10 * MILLISECOND_NS
"""A retention below this drops the checkpoint in the very entry that closes it last."""

# --- sessions ----------------------------------------------------------------------------
SESSIONS_MAX: Final = 100_000
CHECKPOINTS_MAX: Final = 1_000_000
HANDLES_PER_SESSION_MAX: Final = 10_000
SEQUENCE_WINDOW: Final = 4096
"""Most mutating requests of a session that may be unanswered at once (bound of its reply table)."""
STAGED_BYTES_PER_SESSION_MAX: Final = 128 * MIB
STAGED_BYTES_MAX: Final = 512 * MIB
STAGES_PER_SESSION_MAX: Final = 4096
"""Most stages a session may hold at once (a vector write may refer to one per element)."""
SESSION_TIMEOUT_NS_MIN: Final = 100 * MILLISECOND_NS
SESSION_TIMEOUT_NS_MAX: Final = 24 * 3600 * SECOND_NS
DUE_PER_ENTRY_MAX: Final = 4096
"""Most expirations and retentions that one entry carries out."""

# --- service groups ------------------------------------------------------------------------
GROUPS_MAX: Final = 10_000
COMPONENTS_PER_GROUP_MAX: Final = 256
COMPONENTS_PER_SESSION_MAX: Final = 1000
GROUP_NAME_BYTES_MAX: Final = 256
"""Longest name of a group or component."""
COMPONENT_RANK_MAX: Final = 1 << 31
COMPONENT_SILENCE_NS_MIN: Final = 100 * MILLISECOND_NS
COMPONENT_SILENCE_NS_MAX: Final = 3600 * SECOND_NS
"""Bounds of the time a component has for an answer, and of its health check."""

# --- SA Forum library --------------------------------------------------------------------
SAF_PENDING_CALLBACKS_MAX: Final = 100_000
"""Callbacks of one initialization that wait for dispatch or for their outcome."""
SAF_PENDING_CHANGES_MAX: Final = 64
"""Callbacks that wait for dispatch, above which changes are left with their tracker."""

# --- wire --------------------------------------------------------------------------------
ENTRY_PAYLOAD_BYTES_MAX: Final = 1 * MIB
"""Most payload one Raft entry carries; a larger write travels as staged chunks."""
INLINE_WRITE_BYTES_MAX: Final = 1 * MIB
STAGE_CHUNK_BYTES: Final = 256 * KIB
"""Size of a staged chunk: small enough that others' writes slip in between."""
FRAME_BYTES_MAX: Final = 2 * MIB
"""Largest frame body either side accepts."""
FRAGMENT_BYTES: Final = 256 * KIB
"""A reply longer than this is streamed as fragments of about this size."""
REPLY_BYTES_MAX: Final = 1 << 32
MESSAGES_PER_FRAME_MAX: Final = 16_384
CONNECTIONS_MAX: Final = 4096
CONNECTION_INFLIGHT_MAX: Final = 4096
"""Requests of one connection the replica holds before it stops reading from it."""
CONNECTION_INFLIGHT_BYTES_MAX: Final = 16 * MIB
CONNECTION_SEND_BYTES_MAX: Final = 4 * MIB
"""Unsent reply bytes of one connection above which the replica stops reading from it."""
HANDSHAKE_SECONDS_MAX: Final = 5.0

# --- tracking ----------------------------------------------------------------------------
HISTORY_BYTES_MAX: Final = 64 * MIB
"""Of the latest changes a replica keeps for trackers that come back (the newest entry always)."""
HISTORY_CHANGES_MAX: Final = 262_144
TRACKERS_PER_CONNECTION_MAX: Final = 64
TRACKERS_MAX: Final = 4096
"""Of a replica."""
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

# --- replica -----------------------------------------------------------------------------
BATCH_COMMANDS_MAX: Final = 1024
PENDING_COMMANDS_MAX: Final = 65_536
"""Commands proposed and not yet applied, above which the leader answers TRY_AGAIN."""
PENDING_BYTES_MAX: Final = 64 * MIB
PEER_QUEUE_BYTES_MAX: Final = 32 * MIB
JOURNAL_SEGMENT_BYTES: Final = 64 * MIB
SNAPSHOT_CHUNK_BYTES: Final = 256 * KIB
