"""A way to one replica that a test can disturb."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from raftckpt.testing import LocalCluster
from raftckpt.testing.proxy import LinkProxy


class Link:
    """A proxy before one replica, in a loop of its own."""

    def __init__(self, cluster: LocalCluster, node: str) -> None:
        host, port = cluster.endpoint(node).rsplit(":", 1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._proxy = LinkProxy(host, int(port))
        self._do(self._proxy.start())
        self.endpoint = f"127.0.0.1:{self._proxy.port}"

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def cut(self, stalled: bool) -> None:
        """Let nothing through, or everything again."""

        async def work() -> None:
            self._proxy.stall(forward=stalled, backward=stalled)

        self._do(work())

    def hold_answers(self) -> None:
        """Let through what is asked, and no answer."""

        async def work() -> None:
            self._proxy.stall(backward=True)

        self._do(work())

    def lose_answers(self) -> None:
        """Break all connections with what they hold; those that follow are whole."""

        async def work() -> None:
            self._proxy.reset()
            self._proxy.stall(backward=False)

        self._do(work())

    def close(self) -> None:
        self._do(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
