"""``connect()`` of the blocking face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raftckpt.client import operations
from raftckpt.client.connecting import Options, make_core
from raftckpt.client.io.threads import ThreadEngine
from raftckpt.client.sync import Checkpoint, Service
from raftckpt.client.sync_driver import Driver
from raftckpt.client.types import TlsOptions

__all__ = ["Checkpoint", "Service", "connect"]


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
) -> Service:
    """Connect to the cluster and open a session.

    Arguments:
        endpoints: "host:port,host:port", a list, or the path of a cluster.yaml.
        timeout: seconds a call may take unless it says otherwise.
        session_timeout: seconds without a sign of life after which the session ends.
        disconnect_grace: seconds after which it ends when this process died.
        node: node id this client counts as; None: that of the replica first connected to.
        tls: paths of PEM files; None: those of ``RAFTCKPT_CA``, ``RAFTCKPT_CERT`` and
            ``RAFTCKPT_KEY``, or of the section ``credentials`` of the cluster.yaml, else no TLS.
        token: credential, where rights are on; None: the content of the file
            ``RAFTCKPT_TOKEN_FILE``, or of ``token_file`` of that section, if there is one.
        name: tells operators who this is; None: program, host and process id.
        session: False: open the session only when a call needs it.

    Raises:
        Unavailable: no replica could be reached.
        TryAgain: replicas were reached, but none leads.
        InvalidParam: an argument is not valid.
        Access: nobody is known by this token or certificate (reason ``credentials``), or a token
            was shown where rights are off (``token``).
    """
    options = Options(endpoints, timeout, session_timeout, disconnect_grace, node, tls, token, name)
    driver = Driver(make_core(options), ThreadEngine(options.context), options.timeout)
    if session:
        try:
            driver.run(operations.ready())
        except BaseException:
            driver.close()
            raise
    return Service(driver)
