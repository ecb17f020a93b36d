"""Who is let in: connections are counted from the moment they are accepted, strangers included.

Decides, and does no IO. A stranger is a connection whose other side has not said who it is: it may
be in the middle of a TLS handshake, or never say anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

__all__ = ["Doors", "Guest"]


class Guest:
    """A connection that was let in.

    Attributes:
        address: IP address it comes from.
        peer: address and port, for the log.
        since: monotonic time of its arrival.
        known: returns whether its other side has said who it is.
        turn_out: closes it, for a reason.
    """

    __slots__ = ("address", "known", "peer", "since", "turn_out")

    def __init__(self, address: str, peer: str, since: float) -> None:
        self.address = address
        self.peer = peer
        self.since = since
        self.forget()

    def forget(self) -> None:
        """Hold nothing of the connection any more, which holds its guest."""
        self.known: Callable[[], bool] = _nobody
        self.turn_out: Callable[[str], None] = _nothing


def _nobody() -> bool:
    return False


def _nothing(why: str) -> None:
    """There is nobody to turn out."""


class Doors:
    """Counts guests.

    Arguments:
        connections: at once.
        per_address: of them from one IP address.
        strangers: of them who have not said who they are.
        greeting: what those did not say, for the log.
    """

    def __init__(
        self, connections: int, per_address: int, strangers: int, greeting: str = "HELLO"
    ) -> None:
        self.connections_max = connections
        self.per_address_max = per_address
        self.strangers_max = strangers
        self.guests: dict[Guest, None] = {}
        self._greeting = greeting
        self._strangers: dict[Guest, None] = {}
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str, peer: str, now: float) -> Guest | str:
        """Let a connection in, or say why not.

        A place that is missing is taken from the one who has been a stranger for longest: whoever
        says who he is at once gets in, however many others say nothing. One address that holds
        more strangers than the others pays for it.
        """
        if self._by_address[address] >= self.per_address_max and not self._make_room(address):
            return f"there are {self.per_address_max} connections from {address}"
        if len(self.guests) >= self.connections_max and not self._make_room(self._crowd()):
            return f"there are {self.connections_max} connections"
        if len(self._strangers) >= self.strangers_max:
            self._make_room(self._crowd())
        guest = Guest(address, peer, now)
        self.guests[guest] = None
        self._by_address[address] += 1
        self._strangers[guest] = None
        return guest

    def _crowd(self) -> str:
        """The address that most of the strangers come from."""
        for guest in [guest for guest in self._strangers if guest.known()]:
            del self._strangers[guest]
        crowds = Counter(guest.address for guest in self._strangers)
        return max(crowds, key=crowds.__getitem__, default="")

    def _make_room(self, address: str) -> bool:
        """Turn the oldest stranger of an address out; False: there is none."""
        for guest in list(self._strangers):
            if guest.known():
                del self._strangers[guest]
            elif guest.address == address:
                guest.turn_out(f"no {self._greeting}, and others wait")
                self.left(guest)
                return True
        return False

    def left(self, guest: Guest) -> None:
        """A connection is gone; it may be said twice."""
        if self.guests.pop(guest, guest) is None:
            self._by_address[guest.address] -= 1
            if not self._by_address[guest.address]:
                del self._by_address[guest.address]
            self._strangers.pop(guest, None)
            guest.forget()
