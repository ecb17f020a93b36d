"""The secret that replicas prove to each other where there is no TLS between them.

A file named by ``peer_secret_file``; else, where all peers are on loopback, ``peer.secret`` in the
data directory of the cluster: the first replica makes it, the others read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

from raftckpt.node.config import ClusterConfig, ConfigError, Problem

__all__ = ["SECRET_CHARACTERS_MIN", "peer_secret"]

SECRET_CHARACTERS_MIN: Final = 32
"""128 bits in hexadecimal."""
_BYTES_MAX: Final = 4096
"""More than any tool makes of a secret; a file that was named by mistake is longer."""
_NAME: Final = "peer.secret"


def peer_secret(config: ClusterConfig) -> bytes:
    """The key of all proofs between replicas; empty: none is asked for.

    Raises:
        ConfigError: the file cannot be read or made, or is too short to be a secret.
    """
    if config.peer_secret_file is not None:
        return _read(config, config.peer_secret_file)
    if config.tls_peer is not None or config.insecure:
        return b""
    path = config.data_dir / _NAME
    if not path.exists():
        try:
            _make(path)
        except OSError as error:
            raise _unusable(config, path, f"cannot be made: {error.strerror}") from error
    return _read(config, path)


def _make(path: Path) -> None:
    """Make it, whole and durable, unless somebody else does: the name appears with the content."""
    temporary = path.with_name(f"{_NAME}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, os.urandom(32).hex().encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(config: ClusterConfig, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_MAX + 1).strip()
    except OSError as error:
        raise _unusable(config, path, f"cannot be read: {error.strerror}") from error
    if not SECRET_CHARACTERS_MIN <= len(text) <= _BYTES_MAX:
        raise _unusable(
            config, path, f"holds {len(text)} bytes, not {SECRET_CHARACTERS_MIN} to {_BYTES_MAX}"
        )
    return hashlib.sha256(text).digest()


def _unusable(config: ClusterConfig, path: Path, why: str) -> ConfigError:
    problem = Problem(
        0,
        f"the secret of the replicas, {path}, {why}",
        "give every replica the same file, of at least 32 random characters (openssl rand -hex 32),"
        " readable by its user",
    )
    return ConfigError(config.path, [problem])
