"""Admin ports of a ``LocalCluster``, and what they answer."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import _free_ports


def with_admin(cluster: LocalCluster) -> LocalCluster:
    """Give each replica an admin port; before it is started."""
    text = yaml.safe_load(cluster.config_path.read_text("utf-8"))
    ports = _free_ports(len(text["replicas"]))
    for replica, port in zip(text["replicas"].values(), ports, strict=True):
        replica["admin"] = f"127.0.0.1:{port}"
    cluster.config_path.write_text(yaml.safe_dump(text), "utf-8")
    return cluster


def url(cluster: LocalCluster, node: str, path: str = "/") -> str:
    replicas = yaml.safe_load(cluster.config_path.read_text("utf-8"))["replicas"]
    return f"http://{replicas[node]['admin']}{path}"


def get(cluster: LocalCluster, node: str, path: str, authorization: str = "") -> tuple[int, str]:
    """Status and body; without words for it the token of ``RAFTCKPT_TOKEN_FILE`` is shown."""
    if not authorization and (file := os.environ.get("RAFTCKPT_TOKEN_FILE")):
        authorization = "Bearer " + Path(file).read_text("ascii").strip()
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url(cluster, node, path), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def metric(cluster: LocalCluster, node: str, sample: str) -> float:
    """Value of a sample; NaN if it is not told."""
    for line in get(cluster, node, "/metrics")[1].splitlines():
        name, _, value = line.rpartition(" ")
        if name == sample:
            return float(value)
    return float("nan")
