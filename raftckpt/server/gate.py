"""Who may look at what on the admin port, while rights are on: credentials as on the client port.

``/livez`` and ``/readyz`` answer everybody with a word. The rest shows names of all tenants, so it
wants the right over the cluster; ``admin_open: metrics`` opens what a scraper reads.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from raftckpt.net.certificates import client_name
from raftckpt.node.clock import SystemClock
from raftckpt.server.admin import Page, PageRequest
from raftckpt.server.greeting import Identification
from raftckpt.server.metrics import Sources

__all__ = ["AdminGate", "shown_token"]

_UNKNOWN: Final = Page(401, b"a credential of this cluster is needed\n")
_NOT_GRANTED: Final = Page(403, b"the right to operate is not granted to this principal\n")
_OFF: Final = Page(403, b"rights are off: no token is looked at, show none\n")
_BEHIND: Final = Page(503, b"behind\n")
_UNREADABLE: Final = Page(400, b"Authorization is Bearer TOKEN, or Basic with it as password\n")


class AdminGate:
    """Asks for the right to operate the cluster.

    Arguments:
        sources: the replica, once it is there.
        cluster: its name.
        opened: paths that are open to everybody who reaches the port.
        clock: ends of tokens are judged by it.
    """

    def __init__(
        self,
        sources: Callable[[], Sources | None],
        cluster: str,
        opened: Callable[[], frozenset[str]],
        clock: SystemClock,
    ) -> None:
        self._sources = sources
        self._cluster = cluster
        self._opened = opened
        self._clock = clock

    def __call__(self, asked: PageRequest) -> Page | None:
        """Return why somebody may not see a page; None: he may."""
        sources = self._sources()
        if asked.path in self._opened() or sources is None:  # without a state nothing is to be seen
            return None
        access = sources.replica.machine.access
        try:
            token = shown_token(asked.authorization)
        except ValueError:
            return _UNREADABLE
        if not access.on:
            return None if token is None else _OFF
        identification = Identification(sources.replica, self._cluster, self._clock)
        identity = identification.prove(token, asked.certificate)
        if identity is None:
            if token is None and client_name(asked.certificate, self._cluster) is None:
                return _UNKNOWN  # a browser asks like that before it knows that it has to
            name, page = "-", _UNKNOWN
        elif not access.operates(identity.principal):
            name, page = access.by_number[identity.principal].name, _NOT_GRANTED
        else:
            return None
        if identification.may_be_behind():
            return _BEHIND
        sources.listener.audit.refused(asked.peer, name, f"the page {asked.path}")
        return page


def shown_token(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; None: there is no header.

    Raises:
        ValueError: it has none.
    """
    if authorization is None:
        return None
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    if scheme.lower() == "basic":
        try:
            plain = base64.b64decode(text.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("not Base64") from None
        password = plain.partition(":")[2]
        if password:
            return password
    raise ValueError("no token")
