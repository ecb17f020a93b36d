"""Trackers of both faces over TLS: nothing is left in the layer between socket and tracker."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

import raftckpt
from raftckpt.testing.local_cluster import _free_ports
from tests.programs import Program

MIB = 1024 * 1024
MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()"]


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[dict[str, object]]:
    """One replica with TLS; keyword arguments of ``connect()``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("replica", "client"):
        authority.issue_cert("localhost", name).private_key_and_cert_chain_pem.write_to_path(
            tmp_path / f"{name}.pem"
        )
    client, peer = _free_ports(2)
    path = tmp_path / "cluster.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "cluster": "tls",
                "replicas": {"n1": {"client": f"localhost:{client}", "peer": f"localhost:{peer}"}},
                "tls": {"client": {"cert": "replica.pem", "key": "replica.pem", "ca": "ca.pem"}},
            }
        )
    )
    with Program(*MAIN, "serve", "--config", path, "--node", "n1", "--found") as replica:
        replica.until_said("ready")
        tls = raftckpt.TlsOptions(
            str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"), str(tmp_path / "client.pem")
        )
        yield {"endpoints": f"localhost:{client}", "tls": tls, "timeout": 30}
        replica.signal(signal.SIGTERM)
        assert replica.wait() == 0, replica.errors


def test_both_faces_over_tls(secured) -> None:
    with raftckpt.connect(**secured) as service:
        checkpoint = service.open("tls", create=raftckpt.Attributes())
        checkpoint.put("large", bytes(3 * MIB))
        with checkpoint.track() as tracker:
            copy: dict[bytes, bytes] = {}
            tracker.next(30).apply_to(copy)
            for number in range(300):
                checkpoint.put("n", b"%d" % number)
                if not number % 50:
                    checkpoint.write("large", b"x" * 200_000, offset=number)
                tracker.next(30).apply_to(copy)  # as soon as it is there
            checkpoint.put("large", b"y" * 2 * MIB)
            tracker.sync()
            for change in tracker.drain():
                change.apply_to(copy)
            assert copy == checkpoint.read_all()

    async def follow() -> None:
        async with raftckpt.aio.connect(**secured) as service:
            checkpoint = await service.open("tls")
            async with await checkpoint.track() as tracker:
                copy: dict[bytes, bytes] = {}
                for number in range(100):
                    await checkpoint.put("n", b"%d" % number)
                await checkpoint.put("large", b"z" * 2 * MIB)
                await tracker.sync()
                for change in await tracker.drain():
                    change.apply_to(copy)
                assert copy == await checkpoint.read_all()

    asyncio.run(follow())
