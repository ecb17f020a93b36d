"""csa103: a counter that survives its process. asyncio client; see csa103_sync.py.

usage: python csa103_async.py ENDPOINTS [SECONDS-BETWEEN-NUMBERS]
"""

import asyncio
import struct
import sys

import raftckpt

ATTRIBUTES = raftckpt.Attributes(
    update="weak", collocated=True, size=4, retention=10e-9, max_sections=2,
    max_section_size=4, max_section_id_size=64,
)  # fmt: skip


async def write_seq(ckpt: raftckpt.aio.Checkpoint, seq: int) -> None:
    data = struct.pack("!I", seq)
    try:
        await ckpt.overwrite("1", data)
    except raftckpt.SectionNotExist:
        await ckpt.create("1", data)
    await ckpt.synchronize()


async def active(ckpt: raftckpt.aio.Checkpoint, period: float) -> None:
    await ckpt.active_replica_set()
    saved = await ckpt.get("1")
    seq = 0 if saved is None else struct.unpack("!I", saved)[0] + 1
    while True:
        await write_seq(ckpt, seq)
        print(f"Hello World! (seq={seq})", flush=True)
        seq += 1
        await asyncio.sleep(period)


async def main() -> None:
    period = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    endpoints = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    async with raftckpt.aio.connect(endpoints, disconnect_grace=0.0, name="csa103") as service:
        ckpt = await service.open("csa103Ckpt", create=ATTRIBUTES)
        print("ready", flush=True)
        worker = None
        while line := await asyncio.to_thread(sys.stdin.readline):
            if worker is not None:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)
                worker = None
            if line.strip() == "ACTIVE":
                worker = asyncio.create_task(active(ckpt, period))
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


asyncio.run(main())
