"""Where the cluster is and how patient the calls are: what C programs have no argument for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from raftckpt.client.kit import TlsOptions, credentials
from raftckpt.errors import InvalidParam

__all__ = ["Settings", "configure", "current", "current_rules"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What :func:`configure` sets; None: from the environment, or the default."""

    endpoints: str | Iterable[str] | None = None
    timeout: float = 14.0
    async_timeout: float = 10.0
    session_timeout: float = 10.0
    disconnect_grace: float = 2.0
    node: str | None = None
    tls: TlsOptions | Mapping[str, Any] | None = None
    token: str | None = None
    name: str | None = None
    rdn_names: bool = False
    extended_names: bool = True
    compat: frozenset[str] = frozenset()


_KNOWN_COMPAT: Final = frozenset({"openais", "safplus"})
_settings = Settings()
_lock = threading.Lock()


def configure(
    endpoints: str | Iterable[str] | None = None,
    *,
    timeout: float = 14.0,
    async_timeout: float = 10.0,
    session_timeout: float = 10.0,
    disconnect_grace: float = 2.0,
    node: str | None = None,
    tls: TlsOptions | Mapping[str, Any] | None = None,
    token: str | None = None,
    name: str | None = None,
    rdn_names: bool = False,
    extended_names: bool = True,
    compat: str | Iterable[str] = (),
) -> None:
    """Say what later calls of ``saCkptInitialize`` connect to; those made before are not touched.

    Arguments:
        endpoints: "host:port,host:port", a list, or the path of a cluster.yaml; None:
            ``RAFTCKPT_ENDPOINTS``, ``RAFTCKPT_CONFIG`` or ``./cluster.yaml``.
        timeout: seconds after which a call without a timeout of its own gives up.
        async_timeout: seconds after which an asynchronous open or synchronize gives up.
        session_timeout: seconds without a sign of life after which the cluster finalizes.
        disconnect_grace: seconds after which it does when this process died; 0: at once, also
            together with the leader (for that each initialization has a connection to every
            replica).
        node: node this process counts as; None: ``RAFTCKPT_NODE``, or the replica's it meets
            first.
        tls: paths of PEM files; None: ``RAFTCKPT_CA``, ``_CERT``, ``_KEY``, ``_CHECK_HOSTNAME``,
            or the section "credentials" of the cluster.yaml.
        token: credential; None: the content of the file ``RAFTCKPT_TOKEN_FILE``, or likewise.
        name: tells operators who this is; None: program, host and process id.
        rdn_names: checkpoint names must begin with "safCkpt=".
        extended_names: names have up to 2048 bytes; False: up to 256, as SaNameT.
        compat: "openais", "safplus" or both ("openais,safplus"): what their programs are used to
            and the standard does not have; ``RAFTCKPT_SAF_COMPAT`` adds to it.

    Raises:
        InvalidParam: an implementation of which no habits are known.
    """
    global _settings
    known = _compat(compat)
    with _lock:
        _settings = Settings(
            endpoints, timeout, async_timeout, session_timeout, disconnect_grace, node, tls, token,
            name, rdn_names, extended_names, known,
        )  # fmt: skip


def current_rules() -> Settings:
    """Return the settings as they are, for rules that hold even when a handle is bad."""
    return _settings


def current() -> Settings:
    """Return the settings, with what the environment says filled in.

    Raises:
        InvalidParam: there is no telling which cluster, or the credentials cannot be used.
    """
    settings = _settings
    get = os.environ.get
    endpoints = settings.endpoints
    if endpoints is None:
        endpoints = get("RAFTCKPT_ENDPOINTS") or _as_path(get("RAFTCKPT_CONFIG"))
        if not endpoints and os.path.exists("cluster.yaml"):
            endpoints = "./cluster.yaml"
        if not endpoints:
            raise InvalidParam(
                "which cluster? Call raftckpt.saf.configure(endpoints), or set RAFTCKPT_ENDPOINTS "
                "or RAFTCKPT_CONFIG"
            )
    tls, token = credentials(endpoints, settings.tls, settings.token)
    node = settings.node if settings.node is not None else get("RAFTCKPT_NODE") or None
    compat = settings.compat | _compat(get("RAFTCKPT_SAF_COMPAT") or ())
    return replace(settings, endpoints=endpoints, tls=tls, token=token, node=node, compat=compat)


def _compat(names: str | Iterable[str]) -> frozenset[str]:
    """Return the names, checked."""
    given = names.split(",") if isinstance(names, str) else names
    found = frozenset(filter(None, (name.strip() for name in given)))
    if unknown := sorted(found - _KNOWN_COMPAT):
        raise InvalidParam(
            f"compat (RAFTCKPT_SAF_COMPAT) is openais, safplus or both, not {', '.join(unknown)!r}"
        )
    return found


def _as_path(path: str | None) -> str:
    """Make the name of a cluster file distinguishable from endpoints."""
    if path and os.sep not in path:
        return os.path.join(".", path)
    return path or ""
