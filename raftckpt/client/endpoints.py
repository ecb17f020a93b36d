"""Where the replicas are: endpoint lists and cluster files; TLS material."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, Final

from raftckpt import limits
from raftckpt.client.types import TlsOptions
from raftckpt.errors import InvalidParam

if TYPE_CHECKING:
    import ssl

__all__ = [
    "RenewedContext",
    "cluster_file",
    "host_and_port",
    "is_cluster_file",
    "is_endpoint",
    "named_endpoints",
    "parse_endpoints",
    "tls_context",
    "tls_options",
]


_PORT_DIGITS_MAX: Final = 5  # of 65535
_SHOWN_MAX: Final = 200  # of an endpoint in an error
_FILE_BYTES_MAX: Final = limits.MIB
_DEPTH_MAX: Final = 16  # cluster.yaml has four levels


def parse_endpoints(endpoints: str | Iterable[str]) -> list[str]:
    """Return the endpoints as a list of "host:port".

    Arguments:
        endpoints: "host:port,host:port", several such strings, or the path of a cluster.yaml.

    Raises:
        InvalidParam: it is none of these; says which part and what is expected.
    """
    return list(named_endpoints(endpoints))


def named_endpoints(endpoints: str | Iterable[str]) -> dict[str, str | None]:
    """Return the endpoints, each with its node id if a cluster.yaml tells it.

    Raises:
        InvalidParam: as :func:`parse_endpoints`.
    """
    if isinstance(endpoints, (str, os.PathLike)):
        text = os.fspath(endpoints)
        if is_cluster_file(text):
            return _from_file(text)
        parts = text.split(",")
    else:
        parts = [part for item in endpoints for part in str(item).split(",")]
    found = [part.strip() for part in parts if part.strip()]
    if not found:
        raise InvalidParam('no endpoints: give "host:port,host:port" or the path of a cluster.yaml')
    for endpoint in found:
        host_and_port(endpoint)
    return dict.fromkeys(found)


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Split "host:port" or "[ipv6]:port".

    Raises:
        InvalidParam: it is no endpoint.
    """
    host, colon, port = endpoint.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    digits = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS_MAX
    if not colon or not host or not digits or int(port) > 65535:
        shown = endpoint if len(endpoint) <= _SHOWN_MAX else endpoint[:_SHOWN_MAX] + "..."
        raise InvalidParam(f'{shown!r} is no endpoint: expected "host:port" or "[ipv6]:port"')
    return host, int(port)


def is_endpoint(endpoint: str) -> bool:
    """Whether :func:`host_and_port` can split it."""
    try:
        host_and_port(endpoint)
    except InvalidParam:
        return False
    return True


def is_cluster_file(endpoints: str) -> bool:
    """Whether it is the path of a cluster.yaml, not a list of endpoints."""
    return endpoints.endswith((".yaml", ".yml")) or os.sep in endpoints


def cluster_file(path: str) -> Any:
    """Return what a cluster.yaml says, as it was parsed.

    Raises:
        InvalidParam: it cannot be read.
    """
    import yaml  # only who gives a file needs it

    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(_plain(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidParam(
            f"cannot read the cluster file {path!r}: {error}; give its path, or endpoints as "
            '"host:port,host:port"'
        ) from None


def _from_file(path: str) -> dict[str, str | None]:
    content = cluster_file(path)
    try:
        found: dict[str, str | None] = {}
        for node, replica in content["replicas"].items():
            client = replica["client"]
            if not isinstance(client, str):
                raise TypeError
            found[client] = str(node)
    except (AttributeError, KeyError, TypeError):
        raise InvalidParam(
            f'{path!r} is no cluster file: expected "replicas: {{n1: {{client: host:port}}}}"'
        ) from None
    if not found:
        raise InvalidParam(f"the cluster file {path!r} names no replicas")
    for endpoint in found:
        host_and_port(endpoint)
    return found


def _plain(file: IO[str]) -> str:
    """Return the text of a file that cannot blow up when it is loaded.

    Raises:
        ValueError: it is too long, nested too deeply, or has aliases.
    """
    import yaml

    text = file.read(_FILE_BYTES_MAX + 1)
    if len(text) > _FILE_BYTES_MAX:
        raise ValueError(f"it is longer than {_FILE_BYTES_MAX} bytes")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH_MAX or isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases, or is nested too deeply")
    return text


def tls_options(tls: TlsOptions | Mapping[str, Any] | None) -> TlsOptions | None:
    """Return the options for what was given.

    Raises:
        InvalidParam: it is something else.
    """
    if tls is None or isinstance(tls, TlsOptions):
        return tls
    try:
        return TlsOptions(**tls)
    except TypeError as error:
        raise InvalidParam(f"tls: expected ca, cert, key: {error}") from None


def tls_context(tls: TlsOptions | Mapping[str, Any] | None) -> ssl.SSLContext | None:
    """Return the TLS context for the options, None if there are none.

    Raises:
        InvalidParam: a file cannot be used.
    """
    options = tls_options(tls)
    return None if options is None else _made(options)


def _made(tls: TlsOptions) -> ssl.SSLContext:
    import ssl

    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = tls.check_hostname
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidParam(
            f"tls: cannot use {tls.ca!r}, {tls.cert!r}, {tls.key!r}: {error}; expected PEM files"
        ) from None
    return context


class RenewedContext:
    """Makes the TLS context again when its files have changed: a service outlives certificates.

    Arguments:
        tls: paths of PEM files.

    Raises:
        InvalidParam: a file cannot be used.
    """

    def __init__(self, tls: TlsOptions) -> None:
        self._tls = tls
        self._read = self._stamps()
        self._context = _made(tls)

    def __call__(self) -> ssl.SSLContext:
        """Return the context for another connection."""
        stamps = self._stamps()
        if stamps != self._read:
            with contextlib.suppress(InvalidParam):  # half of them is there: the next one looks
                self._context, self._read = _made(self._tls), stamps
        return self._context

    def _stamps(self) -> list[tuple[int, int, int]]:
        return [_stamp(path) for path in (self._tls.ca, self._tls.cert, self._tls.key)]


def _stamp(path: str | None) -> tuple[int, int, int]:
    """What changes when a file does."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)
