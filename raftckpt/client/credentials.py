"""Whom replicas are to see and to show: from the environment and the configuration file.

For who passes none: a C program has no argument for them. What stands in a variable goes before
what stands in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftckpt.client.endpoints import cluster_file, is_cluster_file
from raftckpt.client.types import TlsOptions
from raftckpt.errors import InvalidParam

__all__ = ["Credentials", "credentials"]

_SECTION: Final = "credentials"
_FILES: Final = ("ca", "cert", "key", "token_file")
_CHECK: Final = "check_hostname"
_SPELLED: Final = {"yes": True, "no": False}


class Credentials(NamedTuple):
    """What was found.

    Attributes:
        tls: None: plain connections.
        token: None: none is shown.
    """

    tls: TlsOptions | Mapping[str, Any] | None
    token: str | None


def credentials(
    endpoints: str | Iterable[str],
    tls: TlsOptions | Mapping[str, Any] | None = None,
    token: str | None = None,
) -> Credentials:
    """Return the credentials for a cluster.

    Arguments:
        endpoints: as ``connect()`` takes them; if it is the path of a file, the section
            "credentials" there counts, with paths relative to the file.
        tls: what was given goes before all; nothing else of it is looked for.
        token: alike; empty: none.

    Raises:
        InvalidParam: they cannot be used; says why.
    """
    path = os.fspath(endpoints) if isinstance(endpoints, (str, os.PathLike)) else ""
    content = cluster_file(path) if is_cluster_file(path) else None
    content = content if isinstance(content, dict) else {}
    found = _from_file(path, content.get(_SECTION))
    for name in _FILES:
        found[name] = os.environ.get(_variable(name)) or found.get(name)
    if text := os.environ.get(_variable(_CHECK)):
        found[_CHECK] = _SPELLED.get(text, text)
    if not isinstance(found.get(_CHECK, True), bool):
        raise InvalidParam(f"{_variable(_CHECK)} is yes or no, not {found[_CHECK]!r}")
    return Credentials(
        _tls(path, content, found) if tls is None else tls,
        _token(found["token_file"]) if token is None else token or None,
    )


def _variable(name: str) -> str:
    return f"RAFTCKPT_{name.upper()}"


def _from_file(path: str, section: Any) -> dict[str, Any]:
    if section is None:
        return {}
    known = [*_FILES, _CHECK]
    if not isinstance(section, dict) or not section.keys() <= set(known):
        raise InvalidParam(f"{path}: {_SECTION} has the keys {', '.join(known)}, not {section!r}")
    for name in _FILES:
        if not isinstance(section.get(name, ""), str):
            raise InvalidParam(f"{path}: {_SECTION}.{name} is a path, not {section[name]!r}")
    base = os.path.dirname(path)
    return {
        name: value if name == _CHECK else os.path.join(base, value)
        for name, value in section.items()
    }


def _tls(path: str, content: dict[Any, Any], found: dict[str, Any]) -> TlsOptions | None:
    ca, cert, key = (found[name] for name in ("ca", "cert", "key"))
    if ca is not None:
        return TlsOptions(ca, cert, key, found.get(_CHECK, True))
    if cert is not None or key is not None:
        raise InvalidParam("RAFTCKPT_CERT and RAFTCKPT_KEY need RAFTCKPT_CA: who signed replicas")
    replicas = content.get("tls")
    if isinstance(replicas, dict) and replicas.get("client"):
        # else plain connections would be refused until somebody looks into the replicas' logs
        raise InvalidParam(
            f"the replicas of {path} speak TLS to clients: set RAFTCKPT_CA, and RAFTCKPT_CERT and "
            "RAFTCKPT_KEY if they ask for a certificate"
        )
    return None


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidParam(f"cannot read the token file {path!r}: {error}") from None
