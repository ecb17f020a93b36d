"""Second connections of a session, one to each replica.

When this process dies the kernel closes them all. A replica that is elected because the leader died
with us knows by its own that our session is over, and need not wait for its timeout. As closing one
says just that, they stay open as long as the session lives, whatever becomes of its components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol

from raftckpt.client.calls import Call, Needs
from raftckpt.client.core import ClientCore
from raftckpt.client.probe import Probe
from raftckpt.protocol.operations import WitnessRequest

__all__ = ["Witness", "witness_of"]

_PATIENCE_SECONDS: Final = 2.0
"""For a replica to answer: longer than an election (0.3 to 0.6 s) and than a standstill that is
forgiven (``node/leadership.py``)."""
_PAUSE_SECONDS: Final = 0.1
"""A third of the shortest election: see below."""
_PAUSE_SECONDS_MAX: Final = 0.2
"""A replica that was down is bound again before it can be elected: else it would not see us die."""
_ENDPOINTS_MAX: Final = 9
"""Seven voters, which are the most that a file may list, and two on their way in (a guess)."""
_KEPT_MAX: Final = 4
"""Connections to one replica that it has not answered yet; then no more is tried (a guess)."""


class Drives(Protocol):
    """The driver of either face."""

    core: ClientCore
    companions: dict[type, Any]

    def accompany(self, peer: Any) -> Callable[[], None]:
        """Drive another peer as long as the service lives."""


class _Bond:
    """The connection to one replica."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.number = 0
        """0: there is none now."""
        self.probe: Probe | None = None
        self.until = 0.0
        """When the next try is due, or this one has failed."""
        self.pause = _PAUSE_SECONDS

    @property
    def bound(self) -> bool:
        """Whether the replica took us for what we are."""
        return self.number > 0 and self.probe is not None and self.probe.answer is not None


class Witness:
    """A peer that keeps them open, until the session ends."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self._bonds: dict[str, _Bond] = {}
        self._kept: dict[int, str] = {}
        """Connections that were asked on and not answered: the replica may take up the question
        any time, and a close after that would look like our death."""
        self._last = 0
        self._over = False

    @property
    def bound(self) -> int:
        """To how many replicas the session is bound."""
        return sum(bond.bound for bond in list(self._bonds.values())) if self.wanted() else 0

    def close(self, error: object = None) -> None:
        """Keep none any more."""
        self._over = True

    def _bond(self, number: int) -> _Bond | None:
        return next((bond for bond in self._bonds.values() if bond.number == number), None)

    def _release(self, bond: _Bond, now: float) -> None:
        """It is gone: wait a little longer each time before the next try."""
        bond.number = 0
        bond.probe = None
        bond.until = now + bond.pause
        bond.pause = min(2 * bond.pause, _PAUSE_SECONDS_MAX)

    # --- as a peer ----------------------------------------------------------------------------

    def wanted(self) -> Mapping[int, str]:
        """Return all of them."""
        if self._over or self._core.roles.lost:
            return {}
        present = {bond.number: bond.endpoint for bond in self._bonds.values() if bond.number}
        return self._kept | present

    def hears(self, number: int) -> bool:
        """All are heard: that they end is what matters."""
        return True

    def data_to_send(self, number: int) -> bytes:
        """Return the greeting and the session's credentials, once."""
        bond = self._bond(number)
        return b"" if bond is None or bond.probe is None else bond.probe.data_to_send()

    def next_deadline(self) -> float:
        """Return when a try is due, or over."""
        if self._over or self._core.roles.lost:
            return inf
        if len(self._bonds) < min(len(self._core.router.endpoints), _ENDPOINTS_MAX):
            return 0.0
        return min((bond.until for bond in self._bonds.values()), default=inf)

    def tick(self, now: float) -> None:
        """Try what is due."""
        for endpoint in self._core.router.endpoints[:_ENDPOINTS_MAX]:
            bond = self._bonds.setdefault(endpoint, _Bond(endpoint))
            if now < bond.until:
                continue
            if bond.number and bond.probe is None:
                self._release(bond, now)  # it is not even up
            elif bond.number and list(self._kept.values()).count(endpoint) == _KEPT_MAX:
                bond.until = now + _PATIENCE_SECONDS
            else:
                if bond.number:
                    self._kept[bond.number] = endpoint
                    bond.probe = None
                self._last += 1
                bond.number = self._last
                bond.until = now + _PATIENCE_SECONDS

    def connected(self, number: int, now: float) -> None:
        """Say who we are."""
        bond = self._bond(number)
        if bond is not None:
            call = Call("witness", Needs.ANY, WitnessRequest(0, *self._core.credentials))
            bond.probe = Probe(bond.endpoint, call, self._core.config.introduction)
            bond.probe.connect()

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """Try again, later."""
        self._kept.pop(number, None)
        bond = self._bond(number)
        if bond is not None:
            self._release(bond, now)

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Take the answer."""
        bond = self._bond(number)
        if bond is None or bond.probe is None or not bond.probe.feed(data):
            return
        if bond.probe.answer is not None and bond.probe.answer.error is None:
            bond.until = inf
            bond.pause = _PAUSE_SECONDS
        else:
            self._release(bond, now)


def witness_of(driver: Drives) -> Witness:
    """Return the witness of a session, made if there is none."""
    made = Witness(driver.core)
    witness: Witness = driver.companions.setdefault(Witness, made)
    if witness is made:
        # it has to look when the session ends
        driver.core.roles.serve(("", "witness"), driver.accompany(witness))
    return witness
