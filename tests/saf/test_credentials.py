"""Where credentials come from: variables, then the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raftckpt import saf as S
from raftckpt.client.credentials import Credentials, credentials
from raftckpt.client.types import TlsOptions
from raftckpt.errors import InvalidParam
from raftckpt.saf.settings import current

from .rules import rule

CALL = "saCkptInitialize"


def written(directory: Path, **content: Any) -> str:
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump({"replicas": {"n1": {"client": "h:1"}}, **content}), "utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CERT", "KEY", "CHECK_HOSTNAME", "TOKEN_FILE"):
        monkeypatch.delenv(f"RAFTCKPT_{name}", raising=False)


def test_none(tmp_path: Path) -> None:
    for endpoints in ("h:1,h:2", ["h:1"], written(tmp_path), written(tmp_path, credentials=None)):
        assert credentials(endpoints) == Credentials(None, None)


@rule(CALL, "credentials: each from its variable, else from the file, relative to it")
def test_variables_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(" secret \n", "utf-8")
    path = written(
        tmp_path,
        credentials={"ca": "ca.pem", "cert": "/c.pem", "key": "k/k.pem", "token_file": "token",
                     "check_hostname": False},
    )  # fmt: skip
    tls = TlsOptions(f"{tmp_path}/ca.pem", "/c.pem", f"{tmp_path}/k/k.pem", False)
    assert credentials(path) == Credentials(tls, "secret")
    monkeypatch.chdir(tmp_path)
    assert credentials("cluster.yaml") == (
        TlsOptions("ca.pem", "/c.pem", "k/k.pem", False),
        "secret",
    )
    monkeypatch.setenv("RAFTCKPT_CA", "mine.pem")
    monkeypatch.setenv("RAFTCKPT_CHECK_HOSTNAME", "yes")
    assert credentials(path).tls == TlsOptions("mine.pem", "/c.pem", f"{tmp_path}/k/k.pem")
    assert credentials("h:1").tls == TlsOptions("mine.pem")
    S.configure(path, tls={"ca": "third.pem"}, token="another")
    assert (current().tls, current().token) == ({"ca": "third.pem"}, "another")


@rule(CALL, "credentials that cannot be used: LIBRARY, and why")
def test_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for section, why in (
        ({"pem": "x"}, "has the keys ca, cert, key, token_file, check_hostname"),
        (["ca"], "has the keys"),
        ({"ca": 7}, "credentials.ca is a path, not 7"),
        ({"ca": "x", "check_hostname": "perhaps"}, "is yes or no, not 'perhaps'"),
        ({"cert": "x"}, "need RAFTCKPT_CA"),
        ({"key": "x"}, "need RAFTCKPT_CA"),
        ({"token_file": "nowhere"}, "cannot read the token file"),
    ):
        path = written(tmp_path, credentials=section)
        with pytest.raises(InvalidParam, match=why):
            credentials(path)
        S.configure(path)
        rc, handle, _ = S.saCkptInitialize(None, S.SaVersionT())
        assert (rc, handle) == (S.SA_AIS_ERR_LIBRARY, 0)
    path = written(tmp_path, tls={"client": {"cert": "n1.pem", "key": "n1.key"}})
    with pytest.raises(InvalidParam, match="speak TLS to clients: set RAFTCKPT_CA"):
        credentials(path)
    monkeypatch.setenv("RAFTCKPT_CA", "ca.pem")
    assert credentials(path).tls == TlsOptions("ca.pem")
    monkeypatch.setenv("RAFTCKPT_CHECK_HOSTNAME", "1")
    with pytest.raises(InvalidParam, match="RAFTCKPT_CHECK_HOSTNAME is yes or no, not '1'"):
        credentials("h:1")
