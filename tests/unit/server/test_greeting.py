"""HELLO: who is let in, with what, and what a replica that may be behind says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt.errors import SaAisError
from raftckpt.model.access import AccessTables, Principal, ProvenIdentity
from raftckpt.server.greeting import Greeting, Identification
from tests.messages import record

ACCESS, TRY_AGAIN = int(SaAisError.ERR_ACCESS), int(SaAisError.ERR_TRY_AGAIN)
OPS = {"subjectAltName": (("URI", "raftckpt://demo/client/ops"),)}


class Arriving:
    """A connection that says HELLO, and keeps what it is told."""

    def __init__(self) -> None:
        self.greeted = self.closed = False
        self.client_name = ""
        self.identity = ProvenIdentity(0)
        self.certificate: Any = None
        self.told: Any = None
        self.audit: list[str] = []

    def greet(self) -> None:
        self.greeted = True

    def identify(self, identity: ProvenIdentity) -> None:
        self.identity = identity

    def audited(self, why: str) -> None:
        self.audit.append(why)

    def value(self, request: int, value: Any) -> None:
        self.told = value

    def refuse(self, request: int, code: int, reason: str, detail: Any = None) -> None:
        assert self.greeted, "else it would not leave"
        self.told = (int(code), reason)

    def close(self) -> None:
        self.closed = True


class Doorway:
    """A replica that greets, and what is in its state."""

    def __init__(self) -> None:
        self.access = AccessTables()
        self.access.add(Principal(7, "ops", certificate=True))
        self.raft = SimpleNamespace(applied_index=5, commit_index=5)
        self.wall = 0
        machine = SimpleNamespace(access=self.access, now_ns=10, revision=3)
        self.replica: Any = SimpleNamespace(
            machine=machine, leader="n2", leading=False, log=SimpleNamespace(status=self._raft)
        )
        clock: Any = SimpleNamespace(wall_ns=lambda: self.wall)
        info: Any = SimpleNamespace(node="n1", cluster="demo", founding="f", endpoints={"n1": "a"})
        self.identification = Identification(self.replica, "demo", clock)
        self._greeting = Greeting(self.replica, info, self.identification)

    def _raft(self) -> Any:
        return self.raft

    def hears(self, client: Any, token: str | None = None, versions: tuple[int, ...] = (1,)) -> Any:
        self._greeting.hello(client, record([200, 1, list(versions), "app", token]))
        return client.told


@pytest.fixture
def doorway() -> Doorway:
    return Doorway()


@pytest.fixture
def client() -> Arriving:
    return Arriving()


def test_everybody_is_let_in_and_told_of_the_cluster(doorway: Doorway, client: Arriving) -> None:
    told = doorway.hears(client)
    assert (told["node"], told["cluster"], told["leader"]) == ("n1", "demo", "n2")
    assert client.client_name == "app"
    assert not client.closed


def test_who_speaks_another_version_is_told_and_closed(doorway: Doorway, client: Arriving) -> None:
    assert doorway.hears(client, versions=(8, 9)) == (int(SaAisError.ERR_VERSION), "version")
    assert client.closed


def test_a_token_that_nobody_looks_at_is_refused(doorway: Doorway, client: Arriving) -> None:
    assert doorway.hears(client, token="rck1.a.b") == (ACCESS, "token")
    assert client.closed


def test_with_rights_a_credential_is_needed(doorway: Doorway, client: Arriving) -> None:
    doorway.access.on = True
    assert doorway.hears(client) == (ACCESS, "credentials")
    assert client.closed
    assert client.audit
    certified = Arriving()
    certified.certificate = OPS
    assert doorway.hears(certified)["node"] == "n1"
    assert certified.identity == ProvenIdentity(7)


def test_who_was_somebody_becomes_nobody_else(doorway: Doorway, client: Arriving) -> None:
    doorway.access.on = True
    doorway.access.add(Principal(8, "web", certificate=True))
    client.certificate = OPS
    doorway.hears(client)
    client.certificate = {"subjectAltName": (("URI", "raftckpt://demo/client/web"),)}
    assert doorway.hears(client) == (ACCESS, "credentials")
    assert client.identity == ProvenIdentity(7)


@pytest.mark.parametrize("why", ["no leader", "not all applied"])
def test_a_replica_that_may_be_behind_refuses_nobody_for_good(
    doorway: Doorway, client: Arriving, why: str
) -> None:
    doorway.access.on = True
    if why == "no leader":
        doorway.replica.leader = None
    else:
        doorway.raft.commit_index = 6
    assert doorway.hears(client) == (TRY_AGAIN, "behind")
    doorway.replica.leading = True
    assert doorway.hears(Arriving()) == (ACCESS, "credentials")


def test_credentials_end_by_the_later_clock(doorway: Doorway) -> None:
    assert doorway.identification.now_ns() == 10
    doorway.wall = 20
    assert doorway.identification.now_ns() == 20
