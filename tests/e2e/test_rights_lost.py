"""The way back in: all credentials of operators are lost, the disks are not."""

from __future__ import annotations

import json

import pytest
from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt.rights import Rights
from raftckpt.testing import LocalCluster

pytestmark = pytest.mark.long


def test_who_has_the_disks_switches_rights_off(capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/operate/rights.md says, command by command."""
    with LocalCluster(3, faults=False, auth=True) as cluster:
        with (
            cluster.connect() as service,
            service.open("kept", create=raftckpt.Attributes()) as checkpoint,
        ):
            checkpoint.put("n", b"acknowledged")
        cluster.token_path.unlink()
        for node in cluster.nodes:
            cluster.terminate(node)
        directories = [str(cluster.node_dir(node)) for node in cluster.nodes]
        assert cli_main.run(["data", "recover", "--compare", *directories, "-o", "json"]) == 0
        best = json.loads(capsys.readouterr().out)["recover"]
        assert cli_main.run(["data", "recover", best, "--rights-off", "--yes"]) == 0
        node = next(each for each in cluster.nodes if str(cluster.node_dir(each)) == best)
        cluster.start(node)
        with raftckpt.connect(cluster.endpoint(node), timeout=30.0) as service:
            assert bytes(service.view("kept").read("n")) == b"acknowledged"
            status = Rights(service).status()
            assert (status.on, status.principals) == (False, 1)
