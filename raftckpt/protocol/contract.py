"""Numbers that all replicas must share: ``apply``, the image and what decodes depend on them.

Whoever changes one changes what a committed entry means: replicas that disagree diverge. They are
pinned by a test; a change comes with a level of the cluster: what a number was below it stays, and
the state machine takes the one of its ``level``. What a single node may choose for
itself is in :mod:`raftckpt.limits`.
"""

from __future__ import annotations

from typing import Final

from raftckpt.limits import KIB, MIB, MILLISECOND_NS, SECOND_NS

SA_TIME_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF
"""SA_TIME_END / SA_TIME_MAX: "never" as a time, "for ever" as a duration (nanoseconds)."""

# --- names and values -------------------------------------------------------------------
CHECKPOINT_NAME_BYTES_MAX: Final = 2048
"""The most that OpenSAF takes as an extended name; an SaNameT itself has 256."""
SECTION_ID_BYTES_MAX: Final = 1024
"""Upper bound of the creation attribute max_section_id_size."""
SESSION_NAME_BYTES_MAX: Final = 256
"""As long as an SaNameT."""
NODE_ID_BYTES_MAX: Final = 64
"""It is the common name of the replica's certificate, which has 64 at most (RFC 5280,
ub-common-name)."""
SESSION_SECRET_BYTES: Final = 16
"""128 bits: nobody guesses them."""
WRITE_BYTES_MAX: Final = 64 * MIB
"""Most bytes one write element, overwrite or initial data may carry (more: NO_RESOURCES)."""
SECTION_BYTES_MAX: Final = 1024 * MIB
"""Longest section, whatever max_section_size allows: one byte far out must not make a huge one."""
VECTOR_ELEMENTS_MAX: Final = 4096
"""Of one write or read: as many as a session may have stages, one for each."""
SECTIONS_MAX: Final = 1 << 32
"""More than an SaUint32T can say, in which the standard gives it: memory ends earlier."""
CORRUPTED_SECTIONS_MAX: Final = 1024
"""Most sections of a checkpoint that fault injection may hold in the state CORRUPTED."""
PAGE_BYTES: Final = 64 * KIB
"""Sections longer than this are kept as pages of this size (copy on write)."""

# --- defaults of the creation attributes (fixed for ever) ---------------------------------
DEFAULT_MAX_SECTIONS: Final = 1 << 20
"""A million, with which all that goes over sections is tested."""
DEFAULT_MAX_SECTION_SIZE: Final = 64 * MIB
"""As much as one write may carry."""
DEFAULT_MAX_SECTION_ID_SIZE: Final = 255
"""As long as the name of a file."""
RETENTION_IMMEDIATE_NS: Final = 10 * MILLISECOND_NS
"""A retention below this drops the checkpoint in the very entry that closes it last."""

# --- sessions ----------------------------------------------------------------------------
SESSIONS_MAX: Final = 100_000
"""A guess, far above the programs of one cluster; from one address half of them. `cluster limits
set` makes it less."""
CHECKPOINTS_MAX: Final = 1_000_000
"""With the 4 KiB that are accounted for each they are 4 GiB: about what a process is meant to hold.
`cluster limits set` makes it less."""
HANDLES_PER_SESSION_MAX: Final = 10_000
"""A guess: a program with more opens what it does not use. It bounds what the end of a session does
in one entry."""
SEQUENCE_WINDOW: Final = 4096
"""Most mutating requests of a session that may be unanswered at once (bound of its reply table)."""
REPLY_TABLE_BYTES_MAX: Final = 1 * MIB
"""Of the results in a reply table that are more than a number; above it nothing is executed until
the client has acknowledged some (the last one may exceed it)."""
STAGED_BYTES_PER_SESSION_MAX: Final = 128 * MIB
"""Two of the longest writes: one is applied while the next one comes."""
STAGED_BYTES_MAX: Final = 512 * MIB
"""Of all sessions: four that stage all they may."""
STAGES_PER_SESSION_MAX: Final = 4096
"""Most stages a session may hold at once (a vector write may refer to one per element)."""
MEMORY_HIGH_PERCENT: Final = 90
"""Of the memory limit; above it new data is refused. The tenth that is left is more than a session
may stage for one write if the limit is a GiB, and what leaders accepted early is counted apart."""
MEMORY_LOW_PERCENT: Final = 85
"""Below it new data is taken again: far enough from the other for who deletes little by little."""
MEMORY_HIGH_PERCENT_MAX: Final = 98
"""Something must be left for what was accepted before it was in the log."""
LIMIT_NAME_BYTES_MAX: Final = 32
"""Far longer than those that there are."""
LIMITS_PER_CHANGE_MAX: Final = 32
"""More than there are names of limits."""
SESSION_TIMEOUT_NS_MIN: Final = 100 * MILLISECOND_NS
"""Two heartbeats: below it a session would end by one that is late."""
SESSION_TIMEOUT_NS_MAX: Final = 24 * 3600 * SECOND_NS
"""A day: who is silent for longer is gone, and what is to outlive him has a retention."""
DUE_PER_ENTRY_MAX: Final = 4096
"""Most expirations and retentions that one entry carries out."""

# --- service groups ------------------------------------------------------------------------
GROUPS_MAX: Final = 10_000
"""A guess: each is a service. `cluster limits set` makes it less."""
COMPONENTS_PER_GROUP_MAX: Final = 256
"""A guess, far above the two or three that there are: when the active one goes, all are looked at
in one entry."""
COMPONENTS_PER_SESSION_MAX: Final = 1000
"""A guess: what the end of one session moves in one entry."""
GROUP_NAME_BYTES_MAX: Final = 256
"""Longest name of a group or component."""
COMPONENT_RANK_MAX: Final = 1 << 31
"""Fits 32 bits with a sign, in whatever language a client is written."""
COMPONENT_SILENCE_NS_MIN: Final = 100 * MILLISECOND_NS
"""As that of sessions: two heartbeats."""
COMPONENT_SILENCE_NS_MAX: Final = 3600 * SECOND_NS
"""Bounds of the time a component has for an answer, and of its health check."""

# --- identities and rights -----------------------------------------------------------------
PRINCIPALS_MAX: Final = 5000
"""A guess, with room for a program each; with spaces, grants and tokens they are one object of an
image."""
SPACES_MAX: Final = 1000
"""Each length of a prefix is looked for when something is opened: so many at most."""
GRANTS_MAX: Final = 100_000
"""Of all spaces together: with all principals and sessions they are one object of an image."""
TOKENS_PER_PRINCIPAL_MAX: Final = 4
"""The one in use, the next one, and those of roll-outs that were not finished."""
PRINCIPAL_NAME_BYTES_MAX: Final = 64
"""It is the common name of a client's certificate, as the id of a node of a replica's."""
TOKEN_ID_BYTES_MAX: Final = 32
"""Ours have 12; the rest is room for other makers of tokens."""

# --- wire --------------------------------------------------------------------------------
INLINE_WRITE_BYTES_MAX: Final = 1 * MIB
"""What one entry of the log carries; a longer write is staged."""
STAGE_CHUNK_BYTES: Final = 256 * KIB
"""Size of a staged chunk: small enough that others' writes slip in between."""

# --- replica -----------------------------------------------------------------------------
BATCH_COMMANDS_MAX: Final = 1024
"""Of one entry, which is applied in one go. Of a KiB each they fill it."""
