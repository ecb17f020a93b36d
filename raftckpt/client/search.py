"""Finding a replica: which to try next, several beside each other, whose cluster it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final, Protocol

from raftckpt.client.config import CoreConfig
from raftckpt.client.endpoints import is_endpoint
from raftckpt.client.greeting import OurFounding, Welcome
from raftckpt.client.link import Contact
from raftckpt.client.peer import SOON_SECONDS
from raftckpt.client.routing import Router

__all__ = ["Search"]

_ROUNDS_MAX: Final = 3
"""Rounds after which patience grows no more: eight times the first (a guess)."""


class Seeker(Protocol):
    """Who looks for a replica."""

    def needs_one(self) -> bool:
        """Whether a connection is needed at all."""

    def in_use(self) -> Contact | None:
        """Return the connection that was adopted and is in use."""

    def adopt(self, contact: Contact) -> None:
        """Go on with a connection that was greeted."""

    def refused(self, error: str) -> None:
        """Tell those who wait that the replicas are of two clusters."""

    def founded_anew(self) -> None:
        """Our cluster is no more."""


class Search:
    """The connections that are being made: nothing but the greeting is said on them.

    Replicas are tried one beside the other, each soon after the one before. One that was welcomed
    and is still here leads; another one that said so has not answered yet.

    Arguments:
        config: how patient.
        endpoints: "host:port" each.
        jitter: returns a number in [0, 1).
        seeker: for whom.

    Attributes:
        at: when the next try begins after a pause.
        beside_at: when the next try begins beside those under way.
        members: endpoints of the replicas by node id, as a replica or the cluster file told.
        ours: whose cluster it is.
    """

    def __init__(
        self,
        config: CoreConfig,
        endpoints: Iterable[str],
        jitter: Callable[[], float],
        seeker: Seeker,
    ) -> None:
        self.router = Router(endpoints, jitter)
        self.ours = OurFounding()
        self.members: dict[str, str] = {}
        self.attempts: dict[int, Contact] = {}
        self.at = self.beside_at = inf
        self._config = config
        self._seeker = seeker
        self._numbers = 0
        self._chosen = ""

    def patience(self) -> float:
        """Return the seconds that one step of getting connected may take."""
        return self._config.connect_timeout * 2.0 ** min(self.router.rounds, _ROUNDS_MAX)

    def next_deadline(self) -> float:
        """Return when :meth:`tick` is due."""
        deadline = min(self.at, self.beside_at)
        for attempt in self.attempts.values():
            deadline = min(deadline, attempt.until)
        return deadline

    def newest(self) -> Contact | None:
        """Return the try that was begun last."""
        return self.attempts[max(self.attempts)] if self.attempts else None

    def busy(self) -> set[str]:
        """Endpoints that have been asked and have not answered yet."""
        busy = {attempt.endpoint for attempt in self.attempts.values()}
        used = self._seeker.in_use()
        if used is not None:
            busy.add(used.endpoint)
        return busy

    def learn(self, members: Mapping[str, str]) -> None:
        """Note where replicas are: "host:port" by node id."""
        self.members = dict(sorted({**self.members, **members}.items()))
        self.router.learn(filter(is_endpoint, members.values()))

    # --- trying ------------------------------------------------------------------------------

    def seek(self, now: float) -> None:
        """Choose the next endpoint and connect to it, now or after a pause."""
        if not self._seeker.needs_one():
            self.at = inf
            return
        held = next((item for item in self.attempts.values() if item.welcome is not None), None)
        if held is not None:
            self.take(held)
        elif self.at == inf:
            self._try_next(now)

    def tick(self, now: float) -> None:
        """Begin what is due, give up what took too long."""
        for attempt in [item for item in self.attempts.values() if now >= item.until]:
            self.failed(attempt, "no answer in time", now)
        if now >= self.beside_at:
            self.beside_at = inf
            if self.busy():  # else there is a pause
                self._try_next(now, beside=True)

    def begin(self, now: float) -> None:
        """The pause is over."""
        self.at = inf
        if self._seeker.needs_one():
            self._attempt(self._chosen, now)

    def _try_next(self, now: float, *, beside: bool = False) -> None:
        """Try the next endpoint that is not being tried; between rounds there is a pause."""
        busy = self.busy()
        pause = 0.0
        for _ in self.router.endpoints:
            endpoint, wait = self.router.next()
            pause = max(pause, wait)
            if endpoint not in busy:
                if pause and not beside:
                    self.at = now + pause
                    self._chosen = endpoint
                else:
                    self._attempt(endpoint, now)
                return

    def _attempt(self, endpoint: str, now: float) -> None:
        self._numbers += 1
        self.attempts[self._numbers] = Contact(self._numbers, endpoint, now + self.patience())
        self.soon(now, len(self.attempts))

    def soon(self, now: float, busy: int) -> None:
        """Try another one beside, unless all are being asked."""
        if busy < len(self.router.endpoints):
            self.beside_at = now + SOON_SECONDS

    def failed(self, attempt: Contact, why: str, now: float) -> None:
        """A try came to nothing."""
        del self.attempts[attempt.number]
        self.router.problems[attempt.endpoint] = why
        self.ours.failed(attempt.endpoint)
        if self.ours.gone(self.router.endpoints):
            self.ours = OurFounding()
            self._seeker.founded_anew()
        if self._seeker.in_use() is None:
            self.seek(now)

    def stop(self) -> None:
        """Try nobody any more."""
        self.attempts.clear()
        self.beside_at = inf

    # --- answers -----------------------------------------------------------------------------

    def is_ours(self, attempt: Contact, welcome: Welcome, now: float) -> bool:
        """Whether a replica that was greeted is one of ours; else it is given up.

        Without a session neither of two clusters is used, until the one is no more.
        """
        stranger = self.ours.stranger(attempt.endpoint, welcome)
        if stranger is not None:
            self._seeker.refused(f"connect: {attempt.endpoint}: {stranger}")
            self.failed(attempt, stranger, now)
        return stranger is None

    def take(self, attempt: Contact) -> None:
        """Go on with a connection."""
        del self.attempts[attempt.number]
        self.at = inf
        self._seeker.adopt(attempt)

    def suggest(self, endpoint: str | None) -> bool:
        """Try a leader's endpoint next, if it is not being tried; return whether."""
        found = endpoint is not None and endpoint not in self.busy()
        if found:
            self.router.suggest(endpoint)
        return found
