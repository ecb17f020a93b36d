"""``raftckpt certs`` and ``config check`` as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

TEXT = """\
cluster: prod
replicas:
  n1: { client: "10.0.0.1:7401", peer: "10.0.0.1:7501" }
  n2: { client: "10.0.0.2:7401", peer: "10.0.0.2:7501" }
  n3: { client: "10.0.0.3:7401", peer: "10.0.0.3:7501" }
"""


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text(TEXT, "utf-8")

    def run(*words: str) -> tuple[int, str, str]:
        code = cli_main.run(list(words))
        return code, *capsys.readouterr()

    return run


def test_made_checked_renewed(typed: Any) -> None:
    code, out, _ = typed("certs", "init", "--config", "cluster.yaml", "--client", "ops")
    assert code == ExitCode.OK
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["replica", "n1"], ["replica", "n2"], ["replica", "n3"], ["client", "ops"],
    ]  # fmt: skip
    code, out, _ = typed("certs", "issue", "client", "app", "--days", "3")
    assert (code, "ends soon" in out) == (ExitCode.OK, True)
    code, out, _ = typed("certs", "renew", "-o", "json")
    assert [each["name"] for each in json.loads(out)["certificates"]] == ["app"]
    assert "nothing ends within 30 days" in typed("certs", "renew")[1]
    code, out, _ = typed("certs", "check", "-o", "json")
    found = json.loads(out)["certificates"]
    assert [each["kind"] for each in found] == ["authority", *["replica"] * 3, *["client"] * 2]
    assert [each["days"] for each in found] == [3649, *[364] * 5]
    Path("certs/hosts/n2/tls/replica.key").write_bytes(
        Path("certs/hosts/n1/tls/replica.key").read_bytes()
    )
    code, out, _ = typed("certs", "check")
    assert (code, out.count("is not that of")) == (ExitCode.REFUSED, 1)


def test_nothing_is_replaced_unasked(typed: Any) -> None:
    init = ("certs", "init", "made", "--config", "cluster.yaml", "--client", "ops")
    assert typed(*init)[0] == ExitCode.OK
    code, _, told = typed(*init)
    assert (code, "made is there already" in told) == (ExitCode.REFUSED, True)
    issue = ("certs", "issue", "client", "ops", "--dir", "made")
    code, _, told = typed(*issue)
    assert (code, "has a certificate and its key" in told) == (ExitCode.REFUSED, True)
    assert typed(*issue, "--overwrite")[0] == ExitCode.OK


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["check"], ExitCode.REFUSED, "certs init"),
        (["renew"], ExitCode.REFUSED, "certs init"),
        (["issue", "client", "x"], ExitCode.REFUSED, "certs init"),
        (["init"], ExitCode.USAGE, "--config"),
        (["init", "--config", "bad.yaml"], ExitCode.USAGE, "cluster is missing"),
    ],
)
def test_errors_say_what_to_do(typed: Any, words: list[str], code: ExitCode, why: str) -> None:
    Path("bad.yaml").write_text("replicas: {}", "utf-8")
    found, out, told = typed("certs", *words)
    assert (found, out) == (code, "")
    assert why in told


def test_without_the_package_it_says_what_to_install(
    typed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "raftckpt.net.authority", None)
    monkeypatch.delitem(sys.modules, "raftckpt.node.issuing", raising=False)
    code, _, told = typed("certs", "check")
    assert (code, "pip install 'raftckpt[certs]'" in told) == (ExitCode.USAGE, True)


def test_config_check_looks_at_certificates(typed: Any, tmp_path: Path) -> None:
    typed("certs", "init", "--config", "cluster.yaml", "--days", "5")
    path = "certs/hosts/n1/cluster.yaml"
    code, out, told = typed("config", "check", path, "--node", "n1")
    assert (code, "is valid" in out) == (ExitCode.OK, True)
    assert "tls.peer.cert of this host ends in 4 days" in told
    code, _, told = typed("config", "check", path, "--node", "n2")
    assert code == ExitCode.USAGE
    assert "for raftckpt://prod/replica/n1, not for raftckpt://prod/replica/n2" in told
    assert "it has no replica n9" in typed("config", "check", path, "--node", "n9")[2]
    typed("certs", "init", "others", "--config", "cluster.yaml")
    for name in ("replica.pem", "replica.key"):
        source = tmp_path / "others/hosts/n1/tls" / name
        (tmp_path / "certs/hosts/n1/tls" / name).write_bytes(source.read_bytes())
    code, out, _ = typed("config", "check", path, "-o", "json")
    shown = json.loads(out)
    assert (code, shown["ok"]) == (ExitCode.USAGE, False)
    assert "tls.peer.cert: it is foreign" in shown["problems"][0]["what"]
    text = Path(path).read_text("utf-8").replace('client: "10.0.0.1', 'client: "10.0.0.9')
    Path("others/hosts/n1/cluster.yaml").write_text(text, "utf-8")
    code, _, told = typed("config", "check", "others/hosts/n1/cluster.yaml")
    assert (code, "it is not for 10.0.0.9" in told) == (ExitCode.OK, True)
