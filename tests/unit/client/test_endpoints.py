from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftckpt.client.calls import Call, Needs
from raftckpt.client.connecting import Options
from raftckpt.client.endpoints import (
    RenewedContext,
    host_and_port,
    named_endpoints,
    parse_endpoints,
    tls_context,
)
from raftckpt.client.greeting import Introduction
from raftckpt.client.probe import Probe, replica_status
from raftckpt.client.routing import ENDPOINTS_MAX, Router
from raftckpt.client.types import TlsOptions
from raftckpt.errors import InvalidParam, Unavailable
from raftckpt.protocol.frames import FrameDecoder, pack_messages
from tests.authority import Authority
from tests.messages import unpack_messages


def test_lists() -> None:
    assert parse_endpoints("a:1, b:2 ,") == ["a:1", "b:2"]
    assert parse_endpoints(["a:1", "b:2,c:3", "a:1"]) == ["a:1", "b:2", "c:3"]
    assert parse_endpoints("[::1]:7401") == ["[::1]:7401"]
    assert host_and_port("[::1]:7401") == ("::1", 7401)


@pytest.mark.parametrize("bad", ["a", "a:", ":1", "a:x", "a:70000", "::1:5", "a:-1", "", " , ", []])
def test_what_is_no_endpoint(bad: Any) -> None:
    with pytest.raises(InvalidParam):
        parse_endpoints(bad)


def test_cluster_files(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "replicas:\n  n1: {client: '127.0.0.1:7401', peer: '127.0.0.1:7501'}\n"
        "  n2: {client: '127.0.0.1:7402', peer: '127.0.0.1:7502'}\n"
    )
    expected = ["127.0.0.1:7401", "127.0.0.1:7402"]
    assert parse_endpoints(str(path)) == expected
    assert parse_endpoints(path) == expected  # type: ignore[arg-type]
    assert named_endpoints(str(path)) == dict(zip(expected, ["n1", "n2"], strict=True))
    assert named_endpoints("a:1") == {"a:1": None}


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "5",
        "replicas: 5",
        "replicas: {}",
        "replicas: {n1: {}}",
        "replicas: {n1: {client: 7401}}",
        "{}",
        "\x00",
        pytest.param("# long\n" * 200_000, id="long"),
        pytest.param("[" * 17 + "]" * 17, id="deep"),
        "a: &a 1\nb: *a",
    ],
)
def test_what_is_no_cluster_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(InvalidParam, match="cluster file"):
        parse_endpoints(str(path))
    with pytest.raises(InvalidParam, match=r"missing\.yml"):
        parse_endpoints(str(tmp_path / "missing.yml"))


def test_files_that_change_are_read_for_the_next_connection(tmp_path: Path) -> None:
    """A service outlives its certificate; half a copy changes nothing."""
    authority = Authority(tmp_path)
    files = authority.issue("app", "app")
    former = authority.issue("former", "app")
    renewed = RenewedContext(TlsOptions(files["ca"], files["cert"], files["key"]))
    first = renewed()
    assert renewed() is first
    Path(files["key"]).write_bytes(Path(former["key"]).read_bytes())
    assert renewed() is first
    Path(files["cert"]).unlink()
    assert renewed() is first
    Path(files["cert"]).write_bytes(Path(former["cert"]).read_bytes())
    second = renewed()
    assert second is not first
    assert renewed() is second
    Path(files["ca"]).write_text("none", "ascii")
    assert renewed() is second
    with pytest.raises(InvalidParam):
        RenewedContext(TlsOptions(files["ca"]))


def test_tls_options(tmp_path: Path) -> None:
    assert tls_context(None) is None
    with pytest.raises(InvalidParam, match="PEM"):
        tls_context(TlsOptions(ca=str(tmp_path / "none.pem")))
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(InvalidParam, match="PEM"):
        tls_context({"ca": str(tmp_path / "bad.pem")})


def test_the_router_goes_round_and_rests() -> None:
    router = Router(["a", "b", "a"], lambda: 1.0, pause_min=0.1, pause_max=0.3)
    tried = [router.next() for _ in range(7)]
    assert [endpoint for endpoint, _ in tried] == ["a", "b"] * 3 + ["a"]
    pauses = [pause for _, pause in tried]
    assert pauses == pytest.approx([0, 0, 0.1, 0, 0.2, 0, 0.3])
    router.progress()
    assert router.next() == ("b", 0.0)


def test_hints_go_first_and_count() -> None:
    router = Router(["a", "b", "c"], lambda: 0.0)
    router.suggest("c")
    assert router.next() == ("c", 0.0)
    assert router.next() == ("a", 0.0)
    router.suggest("elsewhere")
    assert router.next() == ("elsewhere", 0.0)
    router.suggest("c")
    endpoint, pause = router.next()
    assert endpoint == "c"
    assert pause > 0
    router.learn(["b", "d"])
    assert router.endpoints == ["a", "b", "c", "d"]
    router.learn(str(number) for number in range(1000))
    assert len(router.endpoints) == ENDPOINTS_MAX


def answer_of(*replies: Any) -> Any:
    probe = Probe("h:1", replica_status(), Introduction("me"))
    probe.connect()
    (body,) = FrameDecoder().feed(probe.data_to_send())
    hello, question = unpack_messages(body)
    assert (hello[0], question) == (200, [121, 2])
    for reply in replies:
        if probe.feed(reply):
            break
    return probe.answer


def test_probes() -> None:
    hello = [0, 1, 1, {"version": 1, "node": "n1", "leader": None, "endpoints": {}}]
    good = answer_of(pack_messages([[2, "leader", {}], hello, [0, 2, 1, {"x": 1}]]))
    assert (good.node, good.value, good.error) == ("n1", {"x": 1}, None)
    probe = Probe("h:1", replica_status(), Introduction("me"))
    probe.connect()
    hello[3]["endpoints"] = {"n1": "h:1", "n2": "h:2"}  # type: ignore[index]
    assert not probe.feed(pack_messages([hello]))
    assert probe.members == {"n1": "h:1", "n2": "h:2"}
    refused = answer_of(pack_messages([hello]), pack_messages([[0, 2, 6, ["busy", None, None], 1]]))
    assert refused.error.reason == "busy"
    for bad in (b"\xff" * 8, pack_messages([[0, 1, 1, 5]]), pack_messages([[0]])):
        answer = answer_of(bad)
        assert isinstance(answer.error, Unavailable)
        assert "h:1" in str(answer.error)
    assert answer_of() is None


def test_calls_describe_themselves() -> None:
    assert Call("read", Needs.ANY, None, subject="c").what == "read on checkpoint 'c'"
    assert Call("close", Needs.ANY, None).what == "close"


def test_a_token_is_that_given_else_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(token: str | None) -> str | None:
        return Options("h:1", 1.0, 10.0, 2.0, None, None, token, None).config.token

    for name in ("TOKEN_FILE", "CA", "CERT", "KEY", "CHECK_HOSTNAME"):
        monkeypatch.delenv(f"RAFTCKPT_{name}", raising=False)
    assert shown(None) is None
    (tmp_path / "token").write_text("rck1.a.b\n", "ascii")
    monkeypatch.setenv("RAFTCKPT_TOKEN_FILE", str(tmp_path / "token"))
    assert shown(None) == "rck1.a.b"
    assert shown("rck1.c.d") == "rck1.c.d"
    assert shown("") is None
    monkeypatch.setenv("RAFTCKPT_TOKEN_FILE", str(tmp_path / "gone"))
    with pytest.raises(InvalidParam, match="cannot read the token file"):
        shown(None)
