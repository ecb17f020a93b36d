"""A replica that leads alone, a client with a session, and its checkpoint."""

from __future__ import annotations

import pytest

from tests.unit.node.fakes import LoneReplica, NotingClient


@pytest.fixture
def world() -> LoneReplica:
    return LoneReplica()


@pytest.fixture
def client(world: LoneReplica) -> NotingClient:
    return world.open_session()


@pytest.fixture
def handle(world: LoneReplica, client: NotingClient) -> int:
    return world.open_checkpoint(client)
