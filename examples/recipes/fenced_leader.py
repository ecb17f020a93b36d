"""A leader with a fencing token, in asyncio: the storage refuses who leads no more.

usage: RAFTCKPT_ENDPOINTS=... python fenced_leader.py FILE

Start it twice. The storage here is an SQLite file that keeps the highest token it has seen; yours
is whatever the leader writes to that can compare a number.
"""

import asyncio
import os
import sqlite3
import sys

import raftckpt
from raftckpt import ha


class Storage:
    """Takes a write only under the highest token that it ever saw."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("CREATE TABLE IF NOT EXISTS fence (one PRIMARY KEY, token)")
        self._db.execute("INSERT OR IGNORE INTO fence VALUES (1, 0)")
        self._db.execute("CREATE TABLE IF NOT EXISTS written (number INTEGER PRIMARY KEY, token)")

    def last(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(number), 0) FROM written").fetchone()[0])

    def write(self, number: int, token: int) -> bool:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # the comparison and the write are one
            fence = "UPDATE fence SET token = ? WHERE token <= ?"
            if self._db.execute(fence, (token, token)).rowcount == 0:
                return False
            self._db.execute("INSERT INTO written VALUES (?, ?)", (number, token))
            return True


async def lead(storage: Storage, lease: ha.aio.Lease) -> None:
    number = storage.last()
    while lease.held:
        number += 1
        if not storage.write(number, lease.token):
            print(f"refused with token {lease.token}", flush=True)
            return
        print(f"wrote {number} with token {lease.token}", flush=True)
        await asyncio.sleep(0.05)


async def take_turns(storage: Storage) -> None:
    # who dies is replaced at once, who is cut off after five seconds
    async with ha.aio.connect(os.environ["RAFTCKPT_ENDPOINTS"]) as service:
        while True:
            async with ha.aio.lease(service, "writer") as lease:  # waits for its turn
                print(f"leads with token {lease.token}", flush=True)
                await lead(storage, lease)
            print("leads no more", flush=True)


async def main() -> None:
    storage = Storage(sys.argv[1])
    while True:
        try:
            await take_turns(storage)
        except raftckpt.CheckpointError as error:  # the session was lost, or nobody is there
            print("leads no more:", error, flush=True)
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main())
