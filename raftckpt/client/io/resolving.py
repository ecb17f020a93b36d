"""Names to addresses, by threads of their own: a resolver that is silent must block nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

from raftckpt.client.reasons import reason_of

__all__ = ["Address", "Resolver"]

Address: TypeAlias = tuple[str, int]
Found: TypeAlias = Callable[[list[Address], str], None]

_FRESH_SECONDS: Final = 5.0
"""So long an address is used without asking again; after that it is asked for meanwhile."""


class Resolver:
    """Remembers what was found, and asks for each name once at a time."""

    def __init__(self) -> None:
        self._known: dict[Address, tuple[list[Address], float]] = {}
        self._asking: dict[Address, list[Found]] = {}
        self._lock = threading.Lock()

    def find(self, host: str, port: int, found: Found) -> list[Address] | None:
        """Return the addresses that are known now, None if they are being asked for.

        Arguments:
            host: a name, or an address.
            port: the port.
            found: called later by another thread, unless all is known and fresh, with the
                addresses or with none and the reason.
        """
        if _is_numeric(host):
            return [(host, port)]
        name = (host, port)
        addresses, at = self._known.get(name, (None, 0.0))
        if addresses is None or monotonic() - at > _FRESH_SECONDS:
            with self._lock:
                waiting = self._asking.get(name)
                if waiting is not None:
                    waiting.append(found)
                    return addresses
                self._asking[name] = [found]
            try:
                threading.Thread(
                    target=self._ask, args=(name,), name="raftckpt-resolve", daemon=True
                ).start()
            except RuntimeError as error:  # no threads are left
                self._answer(name, [], str(error))
        return addresses

    def _ask(self, name: Address) -> None:
        addresses: list[Address] = []
        why = "the name has no address"
        try:
            rows = socket.getaddrinfo(*name, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys((str(row[4][0]), int(row[4][1])) for row in rows))
        except OSError as error:
            why = reason_of(error)
        except UnicodeError as error:
            why = str(error)
        self._answer(name, addresses, why)

    def _answer(self, name: Address, addresses: list[Address], why: str) -> None:
        if addresses:
            self._known[name] = addresses, monotonic()
        with self._lock:
            waiting = self._asking.pop(name, [])
        for found in waiting:
            found(addresses, why)


def _is_numeric(host: str) -> bool:
    for family, text in ((socket.AF_INET, host), (socket.AF_INET6, host.partition("%")[0])):
        try:
            socket.inet_pton(family, text)
        except (OSError, UnicodeError, ValueError):
            continue
        return True
    return False
