"""Fault injection as users call it, by both faces and across a failover."""

from __future__ import annotations

import asyncio

import pytest

import raftckpt
from raftckpt.testing import corrupt_section


def test_a_corrupted_section_stays_so_across_a_failover(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        checkpoint = service.open("corrupted", create=raftckpt.Attributes())
        checkpoint.put("a", b"data")
        assert corrupt_section(checkpoint, "a") > 0
        leader = cluster.leader()
        cluster.kill(leader)
        with pytest.raises(raftckpt.BadOperation) as caught:
            checkpoint.read("a")
        assert (caught.value.reason, caught.value.definite) == ("corrupted", True)
        with pytest.raises(raftckpt.BadOperation):
            checkpoint.write("a", b"x")
        with pytest.raises(raftckpt.BadOperation):
            checkpoint.read_all()
        assert [s.id for s in checkpoint.sections("corrupted")] == [b"a"]
        assert checkpoint.status().corrupted == 1
        checkpoint.overwrite("a", b"mended")
        assert checkpoint.read("a") == b"mended"
        assert checkpoint.status().corrupted == 0
        cluster.restart(leader)


def test_it_works_on_weak_checkpoints_and_with_asyncio(cluster) -> None:
    async def main() -> None:
        async with await raftckpt.aio.connect(cluster.endpoints, timeout=30) as service:
            create = raftckpt.Attributes(update="weak")
            checkpoint = await service.open("weak", create=create)
            await checkpoint.put("a", b"data")
            await corrupt_section(checkpoint, "a")
            with pytest.raises(raftckpt.BadOperation):
                await checkpoint.read("a")
            with pytest.raises(raftckpt.BadOperation):
                await checkpoint.write("a", b"x")
            await checkpoint.delete("a")
            assert await checkpoint.sections("corrupted") == []

    asyncio.run(main())
