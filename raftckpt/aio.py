"""The asyncio client: the same names as in :mod:`raftckpt`, awaitable.

Example::

    async with raftckpt.aio.connect("127.0.0.1:7401,127.0.0.1:7402") as service:
        ckpt = await service.open("counter", create=raftckpt.Attributes())
        await ckpt.put("1", b"data")
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any

from raftckpt.client import operations
from raftckpt.client.aio import Checkpoint, Service, Transaction, View
from raftckpt.client.aio_driver import Driver
from raftckpt.client.aio_rights import Rights
from raftckpt.client.aio_tracking import Tracker
from raftckpt.client.connecting import Options, make_core
from raftckpt.client.io.loop import LoopEngine
from raftckpt.client.types import TlsOptions

__all__ = [
    "Checkpoint",
    "Client",
    "Connecting",
    "Rights",
    "Service",
    "Tracker",
    "Transaction",
    "View",
    "connect",
]

Client = Service


class Connecting:
    """What :func:`connect` returns: await it, or use it in ``async with``."""

    def __init__(self, options: Options, session: bool) -> None:
        self._options = options
        self._session = session
        self._service: Service | None = None

    async def _connect(self) -> Service:
        options = self._options
        driver = Driver(make_core(options), LoopEngine(options.context), options.timeout)
        if self._session:
            try:
                await driver.run(operations.ready())
            except BaseException:
                await driver.close()
                raise
        return Service(driver)

    def __await__(self) -> Generator[Any, None, Service]:
        return self._connect().__await__()

    async def __aenter__(self) -> Service:
        self._service = await self._connect()
        return self._service

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._service is not None:
            await self._service.__aexit__(kind, error, trace)


def connect(
    endpoints: str | Iterable[str],
    *,
    timeout: float = 10.0,
    session_timeout: float = 10.0,
    disconnect_grace: float = 2.0,
    node: str | None = None,
    tls: TlsOptions | Mapping[str, Any] | None = None,
    token: str | None = None,
    name: str | None = None,
    session: bool = True,
) -> Connecting:
    """Connect to the cluster and open a session; see :func:`raftckpt.connect`."""
    options = Options(endpoints, timeout, session_timeout, disconnect_grace, node, tls, token, name)
    return Connecting(options, session)
