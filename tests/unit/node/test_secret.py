"""The secret that replicas share: made once, read by all, refused when it is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftckpt.node.config import ClusterConfig, ConfigError, parse
from raftckpt.node.secret import peer_secret

LOCAL = """\
cluster: demo
replicas:
  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}
"""
REMOTE = LOCAL.replace("127.0.0.1", "10.0.0.1") + "tls: {client: {cert: c, key: c, ca: c}}\n"


def config(tmp_path: Path, text: str) -> ClusterConfig:
    (tmp_path / "c").touch(0o600)
    return parse(text, str(tmp_path / "cluster.yaml"))


def test_the_first_replica_makes_it_the_others_read_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    here = config(tmp_path, LOCAL)
    secret = peer_secret(here)
    assert len(secret) == 32
    assert peer_secret(here) == secret
    path = tmp_path / "data" / "peer.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "data") == ["peer.secret"]
    assert len(path.read_text().strip()) == 64


def test_nobody_proves_anything_with_insecure(tmp_path: Path) -> None:
    assert peer_secret(config(tmp_path, LOCAL + "insecure: true\n")) == b""
    assert not (tmp_path / "data").exists()


def test_hosts_name_a_file_and_are_told_what_it_is_worth(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("0123456789abcdef" * 2 + "\n")
    (tmp_path / "s").chmod(0o644)
    with pytest.raises(ConfigError, match="peer_secret_file"):
        config(tmp_path, REMOTE)
    found = config(tmp_path, REMOTE + "peer_secret_file: s\n")
    assert len(peer_secret(found)) == 32
    assert any("use tls.peer on such networks" in warning for warning in found.warnings)
    assert any("other users may use" in warning for warning in found.warnings)
    (tmp_path / "s").chmod(0o600)
    found = config(tmp_path, REMOTE + "peer_secret_file: s\n")
    assert not any("other users" in warning for warning in found.warnings)


@pytest.mark.parametrize("content", ["", "short", "x" * 5000])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "s").write_text(content)
    with pytest.raises(ConfigError, match=r"holds \d+ bytes"):
        peer_secret(config(tmp_path, LOCAL + "peer_secret_file: s\n"))
    with pytest.raises(ConfigError, match="no file"):
        config(tmp_path, LOCAL + "peer_secret_file: elsewhere\n")


def test_one_that_cannot_be_made_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        peer_secret(config(tmp_path, LOCAL))  # there is no data directory
    (tmp_path / "data" / "peer.secret").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        peer_secret(config(tmp_path, LOCAL))
