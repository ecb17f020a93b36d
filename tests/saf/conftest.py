"""One real cluster for all of these tests; a fresh initialization for those that ask for one.

Cluster and libraries end with the tests of this folder: a library that outlived them would connect
anew in the middle of a test that is pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftckpt import saf
from raftckpt.testing import LocalCluster

from .env import B01, B02, B03, Library


@pytest.fixture(scope="package")
def saf_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, durability="os", faults=False) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _configured(saf_cluster: LocalCluster) -> Iterator[None]:
    saf.configure(saf_cluster.endpoints, timeout=60.0, async_timeout=60.0)
    yield
    saf.configure()


@pytest.fixture(scope="package")
def libraries(saf_cluster: LocalCluster) -> Iterator[dict[str, Library]]:
    """Shared by the rows of the tables: a version each, those without callbacks, one finalized."""
    saf.configure(saf_cluster.endpoints, timeout=60.0, async_timeout=60.0)
    made = {
        "B.01": Library(B01),
        "B.02": Library(B02),
        "silent": Library(B02, callbacks=False),
        "finalized": Library(B02),
        "tracker": Library(B03),
        "silent tracker": Library(B03, callbacks=False),
    }
    made["finalized"].finalize()
    yield made
    for name, library in made.items():
        if name != "finalized":
            library.finalize()


@pytest.fixture
def library(_configured: None) -> Iterator[Library]:
    made = Library(B02)
    yield made
    saf.saCkptFinalize(made.handle)


@pytest.fixture
def old(_configured: None) -> Iterator[Library]:
    made = Library(B01)
    yield made
    saf.saCkptFinalize(made.handle)
