"""Many reads at once: every one is answered, and no replica notices more than work."""

from __future__ import annotations

import asyncio

import pytest

import raftckpt
import raftckpt.aio
from raftckpt.testing import LocalCluster

DATA = bytes(range(250)) * 240  # 60,000 bytes: below a page, so not a streamed reply each


async def _read(cluster: LocalCluster, consistency: str) -> None:
    async with asyncio.timeout(60):
        service = await raftckpt.aio.connect(cluster.endpoints, timeout=20)
        try:
            checkpoint = await service.open("bulk", create=raftckpt.Attributes())
            await checkpoint.put("a", DATA)
            for number in range(400):
                await checkpoint.put(f"s{number}", b"small")
            for count in (60, 600):
                reads = [checkpoint.read("a", consistency=consistency) for _ in range(count)]
                assert all(data == DATA for data in await asyncio.gather(*reads))
            listings = [checkpoint.ids(consistency=consistency) for _ in range(40)]
            assert {len(ids) for ids in await asyncio.gather(*listings)} == {401}
            mixed = [
                call
                for _ in range(20)
                for call in (
                    checkpoint.read_all(consistency=consistency),
                    checkpoint.read("a", consistency=consistency),
                    checkpoint.sections(consistency=consistency),
                )
            ]
            assert len(await asyncio.gather(*mixed)) == 60
        finally:
            await service.close()


@pytest.mark.parametrize("consistency", ["linearizable", "local"])
def test_reads_at_once_hurt_nobody(cluster: LocalCluster, consistency: str) -> None:
    pids = {node: cluster.pid(node) for node in cluster.nodes}
    asyncio.run(_read(cluster, consistency))
    assert {node: cluster.exit_code(node) for node in cluster.nodes} == dict.fromkeys(pids)
    assert {node: cluster.pid(node) for node in cluster.nodes} == pids
