"""What programs of openais and SAFplus are used to: by an opt-in, never by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftckpt import saf as S
from raftckpt.errors import InvalidParam
from raftckpt.testing import LocalCluster

from .env import (
    ALL,
    B01,
    COLLOCATED,
    CREATE,
    READ,
    WRITE,
    Library,
    attributes,
    create,
    ids,
    new_name,
    read,
    sid,
)
from .rules import rule

OK = S.SA_AIS_OK
INVALID = S.SA_AIS_ERR_INVALID_PARAM
OPT_IN = "RAFTCKPT_SAF_COMPAT"
EVERYTHING = READ | WRITE | CREATE
DISTRIBUTED = 0x10
OF_SAFPLUS = (DISTRIBUTED, 0x20, 0x40, 0x80, 0x100)


def opened(
    library: Library, timeout: int, asked: S.SaCkptCheckpointCreationAttributesT | None = None
) -> tuple[int, int]:
    given = asked or attributes()
    return S.saCkptCheckpointOpen(library.handle, new_name(), given, EVERYTHING, timeout)


@pytest.fixture
def compat(saf_cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Library]:
    S.configure(saf_cluster.endpoints, timeout=60.0, async_timeout=60.0, compat=request.param)
    made = Library(B01)
    yield made
    made.finalize()


openais = pytest.mark.parametrize("compat", ["openais"], indirect=True)
safplus = pytest.mark.parametrize("compat", ["safplus"], indirect=True)


@rule(OPT_IN, "without it: timeout 0 does not wait, -1 and SAFplus's flags are INVALID_PARAM")
def test_none_by_default(library: Library) -> None:
    assert opened(library, 0) == (S.SA_AIS_ERR_TIMEOUT, 0)
    assert opened(library, -1) == (INVALID, 0)
    assert opened(library, S.SA_TIME_MAX, attributes(retentionDuration=-1)) == (INVALID, 0)
    for flag in OF_SAFPLUS:
        assert opened(library, S.SA_TIME_MAX, attributes(creationFlags=ALL | flag)) == (INVALID, 0)
    checkpoint = library.open()
    create(checkpoint, b"1")
    assert S.saCkptCheckpointRetentionDurationSet(checkpoint, -1) == INVALID
    assert S.saCkptSectionExpirationTimeSet(checkpoint, sid(b"1"), -1) == INVALID


@openais
@rule(OPT_IN, "openais: an open with timeout 0 waits; nothing of SAFplus's")
def test_openais(compat: Library) -> None:
    rc, checkpoint = opened(compat, 0)
    assert rc == OK
    create(checkpoint, b"1", b"x")
    assert read(checkpoint, b"1") == b"x"
    assert opened(compat, -1) == (INVALID, 0)
    flags = attributes(creationFlags=ALL | DISTRIBUTED)
    assert opened(compat, S.SA_TIME_MAX, flags) == (INVALID, 0)


@safplus
@rule(OPT_IN, "safplus: -1 is for ever: timeouts, retentions, expirations; nothing of openais's")
def test_for_ever(compat: Library) -> None:
    rc, checkpoint = opened(compat, -1, attributes(retentionDuration=-1))
    assert rc == OK
    assert _status(checkpoint).retentionDuration == S.SA_TIME_END
    assert S.saCkptCheckpointRetentionDurationSet(checkpoint, 0) == OK
    assert S.saCkptCheckpointRetentionDurationSet(checkpoint, -1) == OK
    assert _status(checkpoint).retentionDuration == S.SA_TIME_END
    create(checkpoint, b"1", expires=-1)
    create(checkpoint, b"2", expires=2**62)
    assert ids(checkpoint, S.SA_CKPT_SECTIONS_FOREVER) == [b"1"]
    assert S.saCkptSectionExpirationTimeSet(checkpoint, sid(b"2"), -1) == OK
    assert ids(checkpoint, S.SA_CKPT_SECTIONS_FOREVER) == [b"1", b"2"]
    assert S.saCkptCheckpointRetentionDurationSet(checkpoint, 0) == OK  # leave none behind
    assert S.saCkptCheckpointRetentionDurationSet(checkpoint, -2) == INVALID
    assert opened(compat, 0) == (S.SA_AIS_ERR_TIMEOUT, 0)
    assert opened(compat, -2) == (INVALID, 0)
    rc, weak = opened(compat, -1, attributes(creationFlags=S.SA_CKPT_WR_ACTIVE_REPLICA))
    assert rc == OK
    assert S.saCkptCheckpointSynchronize(weak, -1) == OK


@safplus
@rule(OPT_IN, "safplus: its creation flags; without an update option a checkpoint is asynchronous")
def test_flags(compat: Library) -> None:
    for flag in OF_SAFPLUS:
        rc, checkpoint = opened(compat, -1, attributes(creationFlags=ALL | flag))
        assert (rc, _status(checkpoint).creationFlags) == (OK, ALL)
    rc, checkpoint = opened(compat, -1, attributes(creationFlags=COLLOCATED | DISTRIBUTED))
    assert rc == OK
    assert S.saCkptActiveReplicaSet(checkpoint) == OK
    assert _status(checkpoint).creationFlags == COLLOCATED | S.SA_CKPT_WR_ACTIVE_REPLICA
    # what SAFplus does not know either, and several update options
    for flags in (0, COLLOCATED, ALL | 0x200, ALL | S.SA_CKPT_WR_ACTIVE_REPLICA | DISTRIBUTED):
        assert opened(compat, -1, attributes(creationFlags=flags)) == (INVALID, 0)


def _status(checkpoint: int) -> S.SaCkptCheckpointCreationAttributesT:
    rc, found = S.saCkptCheckpointStatusGet(checkpoint)
    assert rc == OK
    assert found is not None
    return found.checkpointCreationAttributes


@rule(OPT_IN, "read at each Initialize; an implementation that is not known: LIBRARY")
def test_from_the_environment(saf_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    S.configure(saf_cluster.endpoints, timeout=60.0, compat="safplus")
    monkeypatch.setenv(OPT_IN, " openais,")
    both = Library()
    monkeypatch.setenv(OPT_IN, "")
    one = Library()
    assert opened(both, 0)[0] == opened(both, -1)[0] == opened(one, -1)[0] == OK
    assert opened(one, 0)[0] == S.SA_AIS_ERR_TIMEOUT
    monkeypatch.setenv(OPT_IN, "safplus,opensaf")
    rc, handle, _ = S.saCkptInitialize(None, S.SaVersionT())
    assert (rc, handle) == (S.SA_AIS_ERR_LIBRARY, 0)
    with pytest.raises(InvalidParam, match=r"openais, safplus or both, not 'corosync'"):
        S.configure(compat=["corosync"])
    both.finalize()
    one.finalize()
