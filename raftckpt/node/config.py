"""cluster.yaml -> a frozen, validated configuration; every error names line and remedy.

Strict on purpose: a key that is misspelt, given twice or of the wrong type stops the start instead
of leaving a default in force that nobody asked for. All errors are collected and told at once.
Precedence: command line flags > environment (``RAFTCKPT_<SECTION>_<KEY>``) > file > default.
Relative paths of the file are relative to the file, those of flags and environment to the cwd.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.node import yamltext
from raftckpt.node.yamltext import Problem
from raftckpt.plain import plain, shown
from raftckpt.protocol import contract

__all__ = [
    "LOG_ROOMS",
    "Address",
    "ClusterConfig",
    "ConfigError",
    "LogConfig",
    "Outline",
    "Problem",
    "ReplicaAddresses",
    "SnapshotConfig",
    "Timing",
    "TlsFiles",
    "announceable",
    "announced",
    "load",
    "outline",
    "parse",
    "parse_address",
]

VOTERS_MAX: Final = 7
"""Seven survive the loss of three; with more each write waits for more disks, and nobody loses
four."""
LOG_ROOMS: Final = ("admin", "links", "node", "raft", "server")
"""Who writes to a replica's log; the audit stream has settings of its own."""
_LEVELS: Final = ("debug", "info", "warning", "error")
_TOLD_MAX: Final = 100
"""Problems that one error tells."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_SIZE = re.compile(r"([0-9]+) ?(B|KiB|MiB|GiB)?\Z")
_UNITS: Final = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class ConfigError(ValueError):
    """The configuration cannot be used. ``str()`` has one line per problem: file:line: what; fix.

    Attributes:
        path: the file.
        problems: all that is wrong, in the order of lines.
    """

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda problem: problem.line)
        lines = [self._line(problem) for problem in self.problems[:_TOLD_MAX]]
        if len(self.problems) > _TOLD_MAX:
            lines.append(f"{path}: {len(self.problems) - _TOLD_MAX} more problems")
        super().__init__("\n".join(lines))

    def _line(self, problem: Problem) -> str:
        where = f"{self.path}:{problem.line}" if problem.line else self.path
        return plain(f"{where}: {problem.what}; fix: {problem.fix}")


class Address(NamedTuple):
    """Host (name or IP, no brackets) and TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it (a host name other than localhost: assume no)."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class ReplicaAddresses(NamedTuple):
    """Where a replica is reached by clients and by its peers.

    Attributes:
        client: by clients.
        peer: by the other replicas.
        admin: where it listens for probes and scrapers; None: it does not.
        bind: host (address) on which it listens for both, if not on that of ``client`` and
            ``peer``; "": on those.
    """

    client: Address
    peer: Address
    admin: Address | None = None
    bind: str = ""

    def listens(self, address: Address) -> Address:
        """Where it listens for what is reached at ``address``."""
        return Address(self.bind or address.host, address.port)


@dataclass(frozen=True, slots=True)
class Timing:
    """Raft's timing in milliseconds."""

    heartbeat_ms: int = 50
    election_min_ms: int = 300
    election_max_ms: int = 600


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """A snapshot is taken after so many entries or bytes of log."""

    entries: int = 100_000
    bytes: int = 256 * limits.MIB


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one port; ``ca`` signs those who may connect (client port: may be None)."""

    cert: Path
    key: Path
    ca: Path | None


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log on stderr, and the audit stream.

    Attributes:
        level: debug, info, warning or error.
        format: text or json, of both.
        rooms: levels of single rooms (:data:`LOG_ROOMS`), over ``level``.
        audit: file of the audit stream; None: it goes to stderr with the others.
        audit_level: info, or warning: refusals only.
    """

    level: str = "info"
    format: str = "text"
    rooms: Mapping[str, str] = field(default_factory=dict)
    audit: Path | None = None
    audit_level: str = "info"


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A validated cluster.yaml."""

    path: str
    cluster: str
    data_dir: Path
    durability: str
    insecure: bool
    replicas: Mapping[str, ReplicaAddresses]
    timing: Timing
    snapshot: SnapshotConfig
    limits: limits.EdgeLimits
    tls_peer: TlsFiles | None
    tls_client: TlsFiles | None
    log: LogConfig
    peer_secret_file: Path | None = None
    """What replicas prove to each other that they have; None: see ``node.secret``."""
    routes: Mapping[str, Address] = field(default_factory=dict)
    """Where this host reaches the peer port of other nodes, if not where they say they are."""
    admin_open: str = "nothing"
    """What of the admin port asks for no right while rights are on."""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def directory(self, node: str) -> Path:
        """Data directory of replica ``node``."""
        return self.data_dir / node

    @property
    def fsync(self) -> bool:
        """Whether an acknowledged write is on disk (durability: fsync)."""
        return self.durability == "fsync"


def parse_address(text: str) -> Address:
    """Parse ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: what is wrong with it.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError("no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    elif not _HOST.match(host) or len(host) > 253:
        raise ValueError(f"{host!r} is not a host")
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{host} is not an IPv4 address") from None
    if not (port_text.isascii() and port_text.isdigit()) or not 1 <= int(port_text) <= 65535:
        raise ValueError(f"{port_text!r} is not a port (1..65535)")
    return Address(host, int(port_text))


def _bind(text: str) -> Address:
    """Parse an address without a port, on which to listen."""
    return parse_address(f"[{text.strip('[]')}]:1" if ":" in text else f"{text}:1")


def announceable(text: str) -> str:
    """What is wrong with an address that others are to dial ("": nothing)."""
    try:
        host = parse_address(text).host
    except ValueError as error:
        return f"{text!r} is no address: {error}"
    try:
        wildcard = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        wildcard = False
    return f"{text} is every address of a host: nobody can dial it" if wildcard else ""


def announced(address: Address) -> str:
    """An address as others are told of it: never one that nobody can dial."""
    return "" if announceable(str(address)) else str(address)


# --- kinds of values: each takes the text or the YAML value and returns it checked ----------------
def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be text (quote it)")
    return value


def _name(value: Any) -> str:
    text = _text(value)
    if not _NAME.match(text) or len(text) > contract.NODE_ID_BYTES_MAX:
        raise ValueError(f"a name has 1..{contract.NODE_ID_BYTES_MAX} characters A-Z a-z 0-9 . _ -")
    return text


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):  # environment and flags
        return bool(value == "true")
    raise ValueError("must be true or false")


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        if not low <= value <= high:
            raise ValueError(f"must be {low}..{high}")
        return value

    return check


def _size(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and (match := _SIZE.match(value)):
            value = int(match[1]) * _UNITS[match[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a number of bytes, or like 256MiB")
        if not low <= value <= high:
            raise ValueError(f"must be {low}..{high} bytes")
        return value

    return check


def _choice(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return check


def _rooms(value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in _text(value).replace(",", " ").split():
        room, _, level = part.partition("=")
        if room not in LOG_ROOMS or level not in _LEVELS:
            raise ValueError(
                f"must be ROOM=LEVEL, ...: rooms are {', '.join(LOG_ROOMS)}, "
                f"levels {', '.join(_LEVELS)}"
            )
        found[room] = level
    return found


_TIMING: Final = Timing()
_SNAPSHOT: Final = SnapshotConfig()
_EDGE: Final = limits.EdgeLimits()
_SETTINGS: Final[dict[str, tuple[Callable[[Any], Any], Any, str]]] = {
    # path: (check, default, example for the fix)
    "cluster": (_name, None, "cluster: demo"),
    "data_dir": (_text, "data", "data_dir: data"),
    "durability": (_choice("fsync", "os"), "fsync", "durability: fsync"),
    "insecure": (_boolean, False, "insecure: false"),
    "peer_secret_file": (_text, None, "peer_secret_file: peer.secret"),
    "admin_open": (_choice("nothing", "metrics"), "nothing", "admin_open: metrics"),
    "timing.heartbeat_ms": (_integer(5, 60_000), _TIMING.heartbeat_ms, "heartbeat_ms: 50"),
    "timing.election_min_ms": (
        _integer(20, 600_000),
        _TIMING.election_min_ms,
        "election_min_ms: 300",
    ),
    "timing.election_max_ms": (
        _integer(20, 600_000),
        _TIMING.election_max_ms,
        "election_max_ms: 600",
    ),
    "snapshot.entries": (_integer(10, 10**9), _SNAPSHOT.entries, "entries: 100000"),
    "snapshot.bytes": (_size(limits.MIB, 1 << 40), _SNAPSHOT.bytes, "bytes: 256MiB"),
    "limits.connections": (_integer(1, 1 << 20), _EDGE.connections, "connections: 4096"),
    "limits.connections_per_address": (
        _integer(1, 1 << 20),
        _EDGE.connections_per_address,
        "connections_per_address: 2048",
    ),
    "limits.receive_bytes": (
        _size(2 * limits.FRAME_BYTES_MAX, 1 << 40),
        _EDGE.receive_bytes,
        "receive_bytes: 64MiB",
    ),
    "limits.send_bytes": (_size(limits.MIB, 1 << 40), _EDGE.send_bytes, "send_bytes: 256MiB"),
    "limits.data_bytes": (_size(0, 1 << 50), _EDGE.data_bytes, "data_bytes: 4GiB"),
    "tls.peer.cert": (_text, None, "cert: n1.pem"),
    "tls.peer.key": (_text, None, "key: n1.key"),
    "tls.peer.ca": (_text, None, "ca: peers-ca.pem"),
    "tls.client.cert": (_text, None, "cert: n1.pem"),
    "tls.client.key": (_text, None, "key: n1.key"),
    "tls.client.ca": (_text, None, "ca: clients-ca.pem"),
    "log.level": (_choice(*_LEVELS), "info", "level: info"),
    "log.format": (_choice("text", "json"), "text", "format: text"),
    "log.rooms": (_rooms, {}, "rooms: raft=debug, links=debug"),
    "log.audit": (_text, None, "audit: audit.log"),
    "log.audit_level": (_choice("info", "warning"), "info", "audit_level: info"),
}
_TREE: Final = {"replicas", "routes"} | {
    path.rsplit(".", depth)[0] for path in _SETTINGS for depth in range(path.count(".") + 1)
}
_SECTIONS: Final = {path for path in _TREE if path not in _SETTINGS}


def variable(path: str) -> str:
    """Environment variable of a setting: ``timing.heartbeat_ms`` -> RAFTCKPT_TIMING_..."""
    return "RAFTCKPT_" + path.upper().replace(".", "_")


@dataclass(slots=True)
class _Value:
    """A checked setting: where it came from decides how paths resolve and what an error names."""

    value: Any
    line: int
    origin: str  # "file", "default", or the name of the flag or variable


class _Parser:
    def __init__(
        self, path: str, environ: Mapping[str, str], overrides: Mapping[str, str | None]
    ) -> None:
        self.path = path
        self.base = Path(path).resolve().parent
        self.environ = environ
        self.overrides = overrides
        self.problems: list[Problem] = []
        self.values: dict[str, _Value] = {}
        self.replicas: dict[str, ReplicaAddresses] = {}
        self.routes: dict[str, Address] = {}
        self.lines: dict[str, int] = {}
        self._taken: dict[Address, tuple[str, int]] = {}

    def problem(self, line: int, what: str, fix: str) -> None:
        self.problems.append(Problem(line, what, fix))

    # --- the file ---------------------------------------------------------------------------
    def read(self, text: str) -> None:
        root = yamltext.parse(text, self.problems)
        if isinstance(root, yamltext.Mapping):
            self._walk(root, "")
        elif root is not None:
            self.problem(root.line, "the file is not a mapping", "start from cluster.yaml shipped")
        for path in _SETTINGS:
            self._override(path)

    def _walk(self, mapping: yamltext.Mapping, prefix: str) -> None:
        for key, node in mapping.items.items():
            path = prefix + key
            self.lines[path] = mapping.keys[key]
            if path == "replicas":
                self._replicas(node)
            elif path == "routes":
                self._routes(node)
            elif path in _SECTIONS:
                if isinstance(node, yamltext.Mapping):
                    self._walk(node, path + ".")
                elif not (isinstance(node, yamltext.Scalar) and node.value is None):
                    self.problem(node.line, f"{path} must be a mapping", "indent its keys below it")
            elif path in _SETTINGS:
                self._setting(path, node)
            else:
                known = sorted(
                    other[len(prefix) :]
                    for other in _TREE
                    if other.startswith(prefix) and "." not in other[len(prefix) :]
                )
                self.problem(
                    mapping.keys[key], f"unknown key {path}", f"one of: {', '.join(known)}"
                )

    def _setting(self, path: str, node: yamltext.Node) -> None:
        if not isinstance(node, yamltext.Scalar):
            self.problem(node.line, f"{path} must be a plain value", _SETTINGS[path][2])
            return
        self._check(path, node.value, node.line, "file")

    def _check(self, path: str, raw: Any, line: int, origin: str) -> None:
        check, _, example = _SETTINGS[path]
        try:
            self.values[path] = _Value(check(raw), line, origin)
        except ValueError as error:
            name = path if origin == "file" else f"{origin} ({path})"
            fix = f"for example {example}"
            if origin != "file":
                sign = "=" if origin.isupper() else " "
                fix = f"for example {origin}{sign}{example.partition(': ')[2]}"
            self.problem(line, f"{name} {error}, not {shown(raw)}", fix)

    def _override(self, path: str) -> None:
        flag = self.overrides.get(path)
        if flag is not None:
            self._check(path, flag, 0, "--" + path.rsplit(".", 1)[-1].replace("_", "-"))
        elif (text := self.environ.get(variable(path))) is not None:
            self._check(path, text, 0, variable(path))

    def _replicas(self, node: yamltext.Node) -> None:
        if not isinstance(node, yamltext.Mapping) or not node.items:
            self.problem(
                node.line,
                "replicas must map node ids to addresses",
                'n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}',
            )
            return
        for name, entry in node.items.items():
            line = node.keys[name]
            try:
                _name(name)
            except ValueError as error:
                self.problem(line, f"node id {name!r}: {error}", "rename it")
            if not isinstance(entry, yamltext.Mapping):
                self.problem(
                    line,
                    f"replicas.{name} must have client and peer",
                    '{client: "host:port", peer: "host:port"}',
                )
                continue
            self._replica(name, entry, line)

    def _routes(self, node: yamltext.Node) -> None:
        if not isinstance(node, yamltext.Mapping):
            self.problem(node.line, "routes must map node ids to addresses", 'n2: "10.1.0.2:7501"')
            return
        for name, value in node.items.items():
            text = value.value if isinstance(value, yamltext.Scalar) else None
            try:
                self.routes[_name(name)] = parse_address(_text(text))
            except ValueError as error:
                self.problem(value.line, f"routes.{name}: {error}", f'{name}: "host:port"')

    def _replica(self, name: str, entry: yamltext.Mapping, line: int) -> None:
        found: dict[str, Address] = {}
        for key, value in sorted(entry.items.items(), key=lambda item: item[0] == "admin"):
            where = f"replicas.{name}.{key}"
            if key not in ("client", "peer", "admin", "bind"):
                fix = "one of: client, peer, admin, bind"
                self.problem(entry.keys[key], f"unknown key {where}", fix)
                continue
            text = value.value if isinstance(value, yamltext.Scalar) else None
            try:
                address = _bind(_text(text)) if key == "bind" else parse_address(_text(text))
            except ValueError as error:
                example = "::" if key == "bind" else "host:port"
                self.problem(value.line, f"{where}: {error}", f'{key}: "{example}"')
                continue
            found[key] = address
            if key == "bind":
                continue
            wrong = announceable(str(address)) if key != "admin" else ""
            if wrong:
                fix = f"write the address that others dial, and bind: {address.host!r} beside it"
                self.problem(value.line, f"{where}: {wrong}", fix)
            where_it_is = self._place(address, name, found)
            if where_it_is in self._taken:
                other, other_line = self._taken[where_it_is]
                self.problem(
                    value.line,
                    f"{where}: {address} is {other} already (line {other_line})",
                    "give each its own address",
                )
            self._taken[where_it_is] = self._taken[address] = (where, value.line)
        missing = [key for key in ("client", "peer") if key not in entry.items]
        if missing:
            self.problem(
                line, f"replicas.{name} lacks {' and '.join(missing)}", f'{missing[0]}: "host:port"'
            )
        if "client" in found and "peer" in found:
            bind = found["bind"].host if "bind" in found else ""
            self.replicas[name] = ReplicaAddresses(
                found["client"], found["peer"], found.get("admin"), bind
            )

    @staticmethod
    def _place(address: Address, name: str, found: Mapping[str, Address]) -> Address:
        """What two replicas cannot share: the loopback of another host is another place."""
        others = [each for each in found.values() if each is not address]
        if address.loopback and others and not any(each.loopback for each in others):
            return Address(f"{address.host} of {name}", address.port)
        return address

    # --- what only the whole can tell -------------------------------------------------------------
    def get(self, path: str) -> Any:
        value = self.values.get(path)
        return _SETTINGS[path][1] if value is None else value.value

    def line(self, path: str) -> int:
        value = self.values.get(path)
        return value.line if value is not None else self.lines.get(path, 0)

    def resolve(self, path: str) -> Path:
        value = self.values.get(path)
        file = Path(str(self.get(path)))
        try:
            file = file.expanduser()
        except RuntimeError:  # ~somebody who does not exist here
            self.problem(self.line(path), f"{path}: no home for {file}", "write the path out")
        return self.base / file if value is None or value.origin == "file" else Path.cwd() / file

    def tls(self, port: str) -> TlsFiles | None:
        prefix = f"tls.{port}."
        given = [key for key in ("cert", "key", "ca") if self.get(prefix + key) is not None]
        if not given:
            if f"tls.{port}" in self.lines:
                self.problem(
                    self.lines[f"tls.{port}"],
                    f"tls.{port} is empty",
                    "give cert, key and ca, or remove it",
                )
            return None
        needed = ("cert", "key", "ca") if port == "peer" else ("cert", "key")
        for key in needed:
            if key not in given:
                why = " (peers authenticate each other)" if key == "ca" else ""
                self.problem(
                    self.lines.get(f"tls.{port}", 0),
                    f"tls.{port} lacks {key}{why}",
                    f"add {_SETTINGS[prefix + key][2]}",
                )
        files: dict[str, Path] = {}
        for key in given:
            files[key] = self.resolve(prefix + key)
            if not os.path.isfile(files[key]):  # Path.is_file raises on names too long
                self.problem(
                    self.line(prefix + key),
                    f"{prefix}{key}: no file {files[key]}",
                    "correct the path (relative paths start at this file)",
                )
        if not all(key in files for key in needed):
            return None
        return TlsFiles(files["cert"], files["key"], files.get("ca"))

    def timing(self) -> Timing:
        timing = Timing(
            self.get("timing.heartbeat_ms"),
            self.get("timing.election_min_ms"),
            self.get("timing.election_max_ms"),
        )
        if timing.election_min_ms <= 3 * timing.heartbeat_ms:
            self.problem(
                self.line("timing.election_min_ms") or self.line("timing.heartbeat_ms"),
                f"election_min_ms {timing.election_min_ms} is not above three heartbeats of "
                f"{timing.heartbeat_ms} ms: leaders would be deposed for one lost message",
                f"election_min_ms: {6 * timing.heartbeat_ms}",
            )
        if timing.election_max_ms <= timing.election_min_ms:
            self.problem(
                self.line("timing.election_max_ms") or self.line("timing.election_min_ms"),
                f"election_max_ms {timing.election_max_ms} is not above election_min_ms "
                f"{timing.election_min_ms}: time-outs must differ to elect anyone",
                f"election_max_ms: {2 * timing.election_min_ms}",
            )
        return timing

    def exposure(self, tls_peer: TlsFiles | None, tls_client: TlsFiles | None) -> None:
        """Refuse to serve other machines to anybody who can reach the port (promise P8)."""
        if self.get("insecure"):
            return
        for name, addresses in self.replicas.items():
            line = self._taken[addresses.peer][1]
            proven = tls_peer is not None or self.get("peer_secret_file") is not None
            if not (addresses.peer.loopback and addresses.listens(addresses.peer).loopback) and (
                not proven
            ):
                self.problem(
                    line,
                    f"replicas.{name}.peer {addresses.peer} is not loopback and tls.peer is not "
                    "set: anybody could pose as a replica",
                    "configure tls.peer (cert, key, ca) or peer_secret_file, or say insecure: true",
                )
            line = self._taken[addresses.client][1]
            open_to_all = tls_client is None or tls_client.ca is None
            if addresses.admin is not None and not addresses.admin.loopback and open_to_all:
                self.problem(
                    self._taken[addresses.admin][1],
                    f"replicas.{name}.admin {addresses.admin} is not loopback and tls.client with "
                    "a ca is not set: anybody could look at this replica",
                    "listen on loopback, configure tls.client (cert, key, ca), or say "
                    "insecure: true",
                )
            reached = addresses.client.loopback and addresses.listens(addresses.client).loopback
            if not reached and open_to_all:
                self.problem(
                    line,
                    f"replicas.{name}.client {addresses.client} is not loopback and tls.client "
                    "with a ca is not set: anybody could read and write",
                    "configure tls.client (cert, key, ca), or say insecure: true",
                )

    def exposed(
        self,
        tls_peer: TlsFiles | None,
        tls_client: TlsFiles | None,
        secret: Path | None,
        data_dir: Path,
    ) -> Iterator[str]:
        """What lets in whoever should not be, though it is allowed."""
        insecure = self.values.get("insecure")
        if insecure is not None and insecure.value:
            where = f"{self.path}:{insecure.line}" if insecure.line else insecure.origin
            if tls_peer is None and secret is None:
                yield f"{where}: insecure: whoever reaches a peer port can pose as a replica"
            if tls_client is None or tls_client.ca is None:
                yield f"{where}: insecure: whoever reaches a client port can read and write"
        if secret is not None and tls_peer is None:
            for name, addresses in self.replicas.items():
                if not addresses.peer.loopback:
                    yield (
                        f"{self.path}:{self.line('peer_secret_file')}: the secret says who is at "
                        f"the other end when a link to {name} begins; who can alter packets on the "
                        "way can still read and change everything: use tls.peer on such networks"
                    )
                    break
        for setting, path in (
            ("tls.peer.key", tls_peer.key if tls_peer is not None else None),
            ("tls.client.key", tls_client.key if tls_client is not None else None),
            ("peer_secret_file", secret),
        ):
            if path is not None and _mode(path) & 0o077:
                yield (
                    f"{self.path}:{self.line(setting)}: {setting}: other users may use {path}: "
                    f"chmod 600 {path}"
                )
        if _mode(data_dir) & 0o022:
            yield (
                f"{self.path}:{self.line('data_dir') or 1}: other users may write to {data_dir}: "
                f"chmod go-w {data_dir}"
            )

    def secret(self) -> Path | None:
        if self.get("peer_secret_file") is None:
            return None
        path = self.resolve("peer_secret_file")
        if not os.path.isfile(path):
            self.problem(
                self.line("peer_secret_file"),
                f"peer_secret_file: no file {path}",
                "make it (openssl rand -hex 32), the same for all replicas",
            )
        return path

    def finish(self) -> ClusterConfig:
        if self.get("cluster") is None and "cluster" not in self.lines:
            self.problem(0, "cluster is missing", "add a line like cluster: demo")
        if "replicas" not in self.lines:
            self.problem(0, "replicas is missing", "start from the cluster.yaml shipped")
        warnings = []
        count = len(self.replicas)
        if count > VOTERS_MAX:
            self.problem(
                self.lines["replicas"],
                f"{count} replicas",
                f"use 1, 3, 5 or {VOTERS_MAX}: more only slows every write",
            )
        elif count % 2 == 0 and count:
            warnings.append(
                f"{self.path}:{self.lines['replicas']}: {count} replicas survive no more failures "
                f"than {count - 1}; use 1, 3, 5 or 7"
            )
        timing = self.timing()
        tls_peer, tls_client = self.tls("peer"), self.tls("client")
        self.exposure(tls_peer, tls_client)
        secret = self.secret()
        data_dir = self.resolve("data_dir")
        if self.problems:
            raise ConfigError(self.path, self.problems)
        if self.get("durability") == "os":
            warnings.append(
                f"{self.path}:{self.line('durability') or 1}: durability os: acknowledged writes "
                "survive kill -9, not a power loss of a majority"
            )
        warnings += self.exposed(tls_peer, tls_client, secret, data_dir)
        return ClusterConfig(
            path=self.path,
            cluster=self.get("cluster"),
            data_dir=data_dir,
            durability=self.get("durability"),
            insecure=self.get("insecure"),
            replicas=dict(sorted(self.replicas.items())),
            timing=timing,
            snapshot=SnapshotConfig(self.get("snapshot.entries"), self.get("snapshot.bytes")),
            limits=limits.EdgeLimits(
                **{edge.name: self.get(f"limits.{edge.name}") for edge in fields(_EDGE)}
            ),
            tls_peer=tls_peer,
            tls_client=tls_client,
            log=LogConfig(
                self.get("log.level"),
                self.get("log.format"),
                self.get("log.rooms"),
                self.resolve("log.audit") if self.get("log.audit") is not None else None,
                self.get("log.audit_level"),
            ),
            peer_secret_file=secret,
            routes=dict(sorted(self.routes.items())),
            admin_open=self.get("admin_open"),
            warnings=tuple(warnings),
        )


class Outline(NamedTuple):
    """What of a cluster.yaml does not depend on the host that it is on.

    Attributes:
        cluster: its name.
        replicas: their addresses.
        files: paths of its TLS files as they are written, by setting ("tls.peer.cert").
    """

    cluster: str
    replicas: Mapping[str, ReplicaAddresses]
    files: Mapping[str, str]


def _mode(path: Path) -> int:
    """Permissions of a file or directory; 0 if they cannot be told."""
    try:
        return path.stat().st_mode & 0o777
    except (OSError, ValueError):
        return 0


def parse(
    text: str,
    path: str = "cluster.yaml",
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str | None] | None = None,
) -> ClusterConfig:
    """Validate the text of a cluster.yaml.

    Arguments:
        text: the YAML.
        path: its file, for messages and as the base of relative paths.
        environ: ``RAFTCKPT_*`` variables (default: none).
        overrides: values of flags by setting path (``{"data_dir": "d"}``); None: not given.

    Raises:
        ConfigError: with every problem found.
    """
    parser = _Parser(path, environ or {}, overrides or {})
    parser.read(text)
    return parser.finish()


def outline(text: str, path: str) -> Outline:
    """Read of a cluster.yaml what certificates are made of; its own need not be there yet.

    Raises:
        ConfigError: with every problem found.
    """
    parser = _Parser(path, {}, {})
    parser.read(text)
    if parser.get("cluster") is None and "cluster" not in parser.lines:
        parser.problem(0, "cluster is missing", "add a line like cluster: demo")
    if not parser.replicas and not parser.problems:
        parser.problem(0, "replicas is missing", "start from the cluster.yaml shipped")
    if parser.problems:
        raise ConfigError(path, parser.problems)
    files = {name: each.value for name, each in parser.values.items() if name.startswith("tls.")}
    return Outline(parser.get("cluster"), dict(sorted(parser.replicas.items())), files)


def load(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str | None] | None = None,
) -> ClusterConfig:
    """Read and validate a cluster.yaml; ``environ`` None means that of the process.

    Raises:
        ConfigError: the file cannot be read or is wrong, with every problem found.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:  # no more of a file that is none of ours than tells it
            text = file.read(4 * yamltext.TEXT_BYTES_MAX + 1).decode("utf-8")
    except UnicodeDecodeError:
        problem = Problem(0, "not UTF-8 text", "save it as UTF-8")
        raise ConfigError(name, [problem]) from None
    except (OSError, ValueError) as error:  # ValueError: a zero in the path
        why = error.strerror if isinstance(error, OSError) else error
        problem = Problem(0, f"cannot be read: {why}", "name the file with --config")
        raise ConfigError(name, [problem]) from None
    return parse(
        text, name, environ=os.environ if environ is None else environ, overrides=overrides
    )
