"""The numbers that all replicas must share are what they were."""

from __future__ import annotations

from raftckpt import limits
from raftckpt.protocol import contract

PINNED = {
    "SA_TIME_MAX": 9223372036854775807,
    "CHECKPOINT_NAME_BYTES_MAX": 2048,
    "SECTION_ID_BYTES_MAX": 1024,
    "SESSION_NAME_BYTES_MAX": 256,
    "NODE_ID_BYTES_MAX": 64,
    "SESSION_SECRET_BYTES": 16,
    "WRITE_BYTES_MAX": 67108864,
    "SECTION_BYTES_MAX": 1073741824,
    "VECTOR_ELEMENTS_MAX": 4096,
    "SECTIONS_MAX": 4294967296,
    "CORRUPTED_SECTIONS_MAX": 1024,
    "PAGE_BYTES": 65536,
    "DEFAULT_MAX_SECTIONS": 1048576,
    "DEFAULT_MAX_SECTION_SIZE": 67108864,
    "DEFAULT_MAX_SECTION_ID_SIZE": 255,
    "RETENTION_IMMEDIATE_NS": 10000000,
    "SESSIONS_MAX": 100000,
    "CHECKPOINTS_MAX": 1000000,
    "HANDLES_PER_SESSION_MAX": 10000,
    "SEQUENCE_WINDOW": 4096,
    "REPLY_TABLE_BYTES_MAX": 1 << 20,
    "STAGED_BYTES_PER_SESSION_MAX": 134217728,
    "STAGED_BYTES_MAX": 536870912,
    "STAGES_PER_SESSION_MAX": 4096,
    "MEMORY_HIGH_PERCENT": 90,
    "MEMORY_LOW_PERCENT": 85,
    "MEMORY_HIGH_PERCENT_MAX": 98,
    "LIMIT_NAME_BYTES_MAX": 32,
    "LIMITS_PER_CHANGE_MAX": 32,
    "SESSION_TIMEOUT_NS_MIN": 100000000,
    "SESSION_TIMEOUT_NS_MAX": 86400000000000,
    "DUE_PER_ENTRY_MAX": 4096,
    "GROUPS_MAX": 10000,
    "COMPONENTS_PER_GROUP_MAX": 256,
    "COMPONENTS_PER_SESSION_MAX": 1000,
    "GROUP_NAME_BYTES_MAX": 256,
    "COMPONENT_RANK_MAX": 2147483648,
    "COMPONENT_SILENCE_NS_MIN": 100000000,
    "COMPONENT_SILENCE_NS_MAX": 3600000000000,
    "PRINCIPALS_MAX": 5000,
    "SPACES_MAX": 1000,
    "GRANTS_MAX": 100_000,
    "TOKENS_PER_PRINCIPAL_MAX": 4,
    "PRINCIPAL_NAME_BYTES_MAX": 64,
    "TOKEN_ID_BYTES_MAX": 32,
    "INLINE_WRITE_BYTES_MAX": 1048576,
    "STAGE_CHUNK_BYTES": 262144,
    "BATCH_COMMANDS_MAX": 1024,
}
"""As literals: who changes the contract changes what committed entries mean, and says so here."""


def test_the_contract_is_pinned() -> None:
    units = {"KIB", "MIB", "MILLISECOND_NS", "SECOND_NS"}
    found = {name: value for name, value in vars(contract).items() if name.isupper()}
    assert {name: value for name, value in found.items() if name not in units} == PINNED


def test_a_number_has_one_home() -> None:
    assert not set(PINNED) & set(vars(limits))
