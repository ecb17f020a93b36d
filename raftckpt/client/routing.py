"""Which replica to try next, and when: endpoints in rotation, hints first, never a spin."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["ENDPOINTS_MAX", "Router"]

ENDPOINTS_MAX = 64
"""Most endpoints a client knows: those given and those the replicas tell about."""


class Router:
    """Chooses the next endpoint and how long to wait before.

    A round is one try per endpoint, hints included. Within a round the next try comes at once;
    between rounds there is a growing pause, so that neither a dead cluster nor two replicas that
    point at each other are hammered.

    Arguments:
        endpoints: "host:port" each, in order of preference.
        jitter: returns a number in [0, 1).
        pause_min, pause_max: bounds of the pause, seconds.

    Attributes:
        problems: by endpoint, why it was of no use last.
        rounds: full ones without progress so far.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        jitter: Callable[[], float],
        pause_min: float = 0.02,
        pause_max: float = 1.0,
    ) -> None:
        self.endpoints: list[str] = list(dict.fromkeys(endpoints))
        self.problems: dict[str, str] = {}
        self._jitter = jitter
        self._pause_min = pause_min
        self._pause_max = pause_max
        self._index = -1
        self._hint: str | None = None
        self._tries = 0
        self.rounds = 0

    def where(self) -> str:
        """Describe the endpoints and what is known about them, for error messages."""
        problems = self.problems
        return "endpoints " + ", ".join(
            f"{endpoint}: {problems[endpoint]}" if endpoint in problems else endpoint
            for endpoint in self.endpoints
        )

    def learn(self, endpoints: Iterable[str]) -> None:
        """Add endpoints a replica told about, behind those that were given."""
        for endpoint in endpoints:
            if endpoint not in self.endpoints and len(self.endpoints) < ENDPOINTS_MAX:
                self.endpoints.append(endpoint)

    def suggest(self, endpoint: str | None) -> None:
        """Note where the leader is said to be; it is tried next, once."""
        self._hint = endpoint

    def progress(self) -> None:
        """Note that a replica did something useful: the next failure starts a new first round."""
        self._tries = 0
        self.rounds = 0

    def next(self) -> tuple[str, float]:
        """Return the endpoint to try and the seconds to wait before."""
        pause = 0.0
        if self._tries >= len(self.endpoints):
            pause = self.pause()
            self._tries = 0
            self.rounds += 1
        self._tries += 1
        if self._hint is not None:
            endpoint, self._hint = self._hint, None
            if endpoint in self.endpoints:
                self._index = self.endpoints.index(endpoint)
        else:
            self._index = (self._index + 1) % len(self.endpoints)
            endpoint = self.endpoints[self._index]
        return endpoint, pause

    def pause(self) -> float:
        """Return the pause that belongs to the present round, seconds."""
        longest = min(self._pause_max, self._pause_min * 2.0 ** min(self.rounds, 16))
        return longest * (0.5 + 0.5 * self._jitter())
