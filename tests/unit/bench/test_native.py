"""The spike of benchmarks/: it makes the product's bytes, and takes nothing that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt.storage import files
from tests.unit.bench.programs import program


@pytest.fixture(scope="module")
def spike() -> Iterator[Any]:
    with program("native") as module:
        yield module


@pytest.fixture(scope="module")
def leader(spike: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not spike.can_build():
        pytest.skip("this machine has not what C needs")
    home = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files._RealFile, "sync", lambda file: None)  # a thousand writes before it
        yield spike.Rig(str(home), spike.built(home))


@pytest.fixture
def rig(leader: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    leader.renew()
    leader.state.proposed = leader.cluster.sequence
    monkeypatch.setattr(leader, "native", leader.native)
    return leader


def test_both_make_the_same_bytes_and_damaged_ones_are_left_to_the_product(
    spike: Any, rig: Any
) -> None:
    rig.listener.turns._spent = 1.0  # as on a slow machine
    good, refused = spike.check(rig)
    assert good > 4
    assert refused > 1000


def test_a_difference_would_be_seen(rig: Any) -> None:
    native = rig.native

    def careless(*given: Any) -> Any:
        requests, commands, costs, encoded = native.take(*given)
        return requests, commands, costs, encoded[:-1] + bytes([encoded[-1] ^ 1])

    frame = rig.frame(3)
    assert rig.agree(frame)
    rig.native = SimpleNamespace(take=careless, record=native.record)
    with pytest.raises(AssertionError, match="something else"):
        rig.agree(frame)


def test_one_that_takes_what_is_refused_would_be_seen(rig: Any) -> None:
    native, frame = rig.native, rig.frame(1)
    taken = native.take(frame, rig.state.id, rig.state.proposed, 9, 1 << 20, rig.state.asynchronous)
    wrong = frame[:-1] + bytes([frame[-1] ^ 1])
    assert not rig.agree(wrong)
    rig.native = SimpleNamespace(take=lambda *given: taken, record=native.record)
    with pytest.raises(AssertionError, match="the product refuses"):
        rig.agree(wrong)


def test_a_handle_that_is_not_known_to_be_synchronous_is_left_to_the_product(rig: Any) -> None:
    frame = rig.frame(1)
    state, native = rig.state, rig.native
    for known in ({}, {1: 5}):
        assert native.take(frame, state.id, state.proposed, 9, 1 << 20, known) is None
    for room, room_bytes in ((0, 1 << 20), (9, 100)):
        known = state.asynchronous
        assert native.take(frame, state.id, state.proposed, room, room_bytes, known) is None


def test_times_are_taken_of_each_stretch(spike: Any, rig: Any) -> None:
    times = spike.timed(rig, spike.Batch.parsed("3/2"), 2, bytearray(4096))
    assert {stretch for stretch, _ in times} == set(spike.STRETCHES)
    assert all(len(each) == 2 for each in times.values())
