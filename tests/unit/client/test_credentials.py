"""Where credentials come from, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftckpt.client import access_operations, operations
from raftckpt.client.credentials import credentials
from raftckpt.client.types import Attributes, ClusterLimits, Lately, TlsOptions
from raftckpt.errors import InvalidParam, NoSpace, SaAisError, error_for

FILE = """cluster: c
replicas:
  n1: {{ client: '127.0.0.1:1', peer: '127.0.0.1:2' }}
{more}
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CERT", "KEY", "TOKEN_FILE", "CHECK_HOSTNAME"):
        monkeypatch.delenv(f"RAFTCKPT_{name}", raising=False)


def file_with(path: Path, more: str) -> str:
    path.joinpath("cluster.yaml").write_text(FILE.format(more=more), "utf-8")
    return str(path / "cluster.yaml")


def test_of_the_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("token").write_text("rck1.a.b\n", "utf-8")
    path = file_with(tmp_path, "credentials: { ca: ca.pem, token_file: token }")
    found = credentials(path)
    assert found.tls == TlsOptions(str(tmp_path / "ca.pem"), None, None, True)
    assert found.token == "rck1.a.b"
    monkeypatch.setenv("RAFTCKPT_CA", "/other.pem")
    monkeypatch.setenv("RAFTCKPT_CHECK_HOSTNAME", "no")
    assert credentials(path).tls == TlsOptions("/other.pem", None, None, False)
    given = TlsOptions("mine.pem")
    assert credentials(path, given, "").tls is given
    assert credentials(path, given, "").token is None
    assert credentials("127.0.0.1:1", None, "t").token == "t"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("credentials: [ca]", "has the keys"),
        ("credentials: { password: x }", "has the keys"),
        ("credentials: { ca: 7 }", "is a path"),
        ("credentials: { cert: a.pem }", "need RAFTCKPT_CA"),
        ("credentials: { token_file: missing }", "cannot read the token file"),
        ("tls: { client: { cert: a, key: b } }", "speak TLS to clients"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(InvalidParam, match=says):
        credentials(file_with(tmp_path, more))


def test_a_variable_that_is_neither_yes_nor_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTCKPT_CHECK_HOSTNAME", "perhaps")
    with pytest.raises(InvalidParam, match="is yes or no"):
        credentials("127.0.0.1:1")


def test_calls_of_operators() -> None:
    assert operations.drain_member("n1", True).message.node == "n1"
    assert operations.limits_now("linearizable").message.consistency == 0
    assert operations.set_limits({"memory": 1}).message.values == [("memory", 1)]
    for wrong in ({}, {"memory": -1}, {"memory": "1"}, {"x" * 33: 1}):
        with pytest.raises(InvalidParam):
            operations.set_limits(wrong)
    limits = ClusterLimits.from_wire([3, [["memory", 9, 4, 0, 10, "bytes"]], True])
    assert limits.full
    assert list(limits.limits) == ["memory"]
    seen = Lately.from_wire([[1000, 2000, 3, None, 5], [], [], []])
    assert (seen.commit_p50_s, list(seen.checkpoints)) == (3e-06, [])
    assert operations.lately().decode == Lately.from_wire


def test_calls_about_quotas_of_spaces() -> None:
    call = access_operations.space_quota("a/", {"bytes": 5, "sections": None}, 3)
    assert call.message.values == [("bytes", 5), ("sections", 0)]
    assert (call.message.space, call.message.expected) == ("a/", 3)
    for wrong in (
        {},
        {"bytes": -1},
        {"bytes": "5"},
        {"bytes": True},
        {"": 1},
        {"x" * 33: 1},
        {5: 1},
    ):
        with pytest.raises(InvalidParam):
            access_operations.space_quota("a/", wrong, None)  # type: ignore[arg-type]
    decode = access_operations.spaces().decode
    rows = [["", []], ["a/", [["web", 3]], [["bytes", 5, 9]]]]
    assert decode([7, 2, rows]) == (
        2,
        [
            access_operations.SpaceRow("", {}, {}),
            access_operations.SpaceRow(
                "a/", {"web": ["read", "write"]}, {"bytes": access_operations.QuotaUse(5, 9)}
            ),
        ],
    )


@pytest.mark.parametrize("detail", [["bytes", 10, "a/"], None, 5, [], "text", ["bytes"]])
def test_a_refusal_is_told_whatever_its_detail(detail: object) -> None:
    code = int(SaAisError.ERR_NO_SPACE)
    error = error_for(code, "space_quota", detail)
    assert isinstance(error, NoSpace)
    assert error.detail == detail
    whole = detail == ["bytes", 10, "a/"]
    assert ("the space 'a/' has a quota of 10 bytes" in str(error)) == whole


def test_a_quota_is_among_the_flags() -> None:
    assert Attributes(size=100, quota=True) != Attributes(size=100)
