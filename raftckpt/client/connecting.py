"""``connect()`` of both faces: options checked, core made."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from raftckpt.client.config import CoreConfig
from raftckpt.client.core import ClientCore
from raftckpt.client.credentials import credentials
from raftckpt.client.endpoints import RenewedContext, named_endpoints, tls_options
from raftckpt.client.types import TlsOptions, duration_ns
from raftckpt.errors import InvalidParam
from raftckpt.protocol import contract

__all__ = ["Options", "core_beside", "make_core"]


class Options:
    """Checked arguments of ``connect()``."""

    __slots__ = ("config", "context", "endpoints", "timeout")

    def __init__(
        self,
        endpoints: str | Iterable[str],
        timeout: float,
        session_timeout: float,
        disconnect_grace: float,
        node: str | None,
        tls: TlsOptions | Mapping[str, Any] | None,
        token: str | None,
        name: str | None,
    ) -> None:
        duration_ns(timeout, "timeout")
        self.timeout = float("inf") if timeout is None else timeout
        session_timeout_ns = duration_ns(session_timeout, "session_timeout")
        low, high = contract.SESSION_TIMEOUT_NS_MIN, contract.SESSION_TIMEOUT_NS_MAX
        if not low <= session_timeout_ns <= high:
            raise InvalidParam(
                f"session_timeout is {low / 1e9:g}..{high / 1e9:g} seconds, not {session_timeout!r}"
            )
        for what, value, bytes_max in (
            ("node", node, contract.NODE_ID_BYTES_MAX),
            ("name", name, contract.SESSION_NAME_BYTES_MAX),
            ("token", token, 4096),
        ):
            if value is not None and not _is_text(value, bytes_max):
                raise InvalidParam(f"{what} is text of at most {bytes_max} bytes, not {value!r}")
        tls, token = credentials(endpoints, tls, token)
        self.endpoints = named_endpoints(endpoints)
        shown = tls_options(tls)
        self.context = None if shown is None else RenewedContext(shown)
        probe_after = min(0.5, session_timeout_ns / 6e9)
        self.config = CoreConfig(
            client_name=default_name() if name is None else name,
            node=node,
            session_timeout_ns=session_timeout_ns,
            disconnect_grace_ns=duration_ns(disconnect_grace, "disconnect_grace"),
            token=token,
            probe_after=probe_after,
            encrypted=self.context is not None,
        )


def _is_text(value: Any, bytes_max: int) -> bool:
    try:
        return len(value.encode("utf-8")) <= bytes_max
    except (AttributeError, UnicodeError):
        return False


def make_core(options: Options) -> ClientCore:
    """Make the core of a new session."""
    core = ClientCore(
        options.config,
        options.endpoints,
        secret=os.urandom(contract.SESSION_SECRET_BYTES),
        jitter=random.random,
    )
    core.learn({node: endpoint for endpoint, node in options.endpoints.items() if node})
    return core


def core_beside(core: ClientCore, endpoint: str) -> ClientCore:
    """Make a core for calls without a session, of the same client, to one replica."""
    secret = os.urandom(contract.SESSION_SECRET_BYTES)
    return ClientCore(core.config, [endpoint], secret=secret, jitter=random.random)


def default_name() -> str:
    """Return a name that tells an operator who this client is."""
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    name = f"{program}@{socket.gethostname()}:{os.getpid()}"
    return name.encode("utf-8", "replace")[: contract.SESSION_NAME_BYTES_MAX].decode(
        "utf-8", "ignore"
    )
