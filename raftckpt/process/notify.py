"""Tells the service manager how we are: the datagrams of ``sd_notify(3)``, without its library."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Does nothing unless the manager asked for it (``NOTIFY_SOCKET``).

    Arguments:
        environ: variables of the process.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._period_s = _period(environ)
        self._timer: asyncio.TimerHandle | None = None
        self._status = ""
        self._ready = False

    def ready(self) -> None:
        """We serve; from now on the watchdog is fed by the loop, as long as it turns."""
        self._ready = True
        self._send("READY=1")
        if self._period_s and self._timer is None:
            self._feed()

    def status(self, text: str) -> None:
        """Say in a line how it is; the same is not said twice."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        """Files are being read again, until :meth:`reloaded`.

        Who is not ready yet does not say so: the end of it would be taken for being ready.
        """
        if self._ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """They were read, whatever came of it."""
        if self._ready:
            self._send("READY=1")

    def stopping(self) -> None:
        """We hand over and leave."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Feed the watchdog no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _feed(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._feed)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode("utf-8"), self._address)
        except OSError:  # nobody listens: what we do does not depend on it
            return


def _period(environ: Mapping[str, str]) -> float:
    """Seconds between signs of life: a third of the time after which the manager gives us up."""
    try:
        pid, microseconds = environ.get("WATCHDOG_PID", ""), int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0.0
    return microseconds / 3e6 if pid in ("", str(os.getpid())) and microseconds > 0 else 0.0
