from __future__ import annotations

from pathlib import Path

import pytest

from raftckpt.limits import EdgeLimits
from raftckpt.node.config import Address, ConfigError, load, parse, parse_address

GOOD = """\
cluster: demo
replicas:
  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}
  n2: {client: "127.0.0.1:7402", peer: "127.0.0.1:7502"}
  n3: {client: "127.0.0.1:7403", peer: "127.0.0.1:7503"}
"""


def problems(text: str, **rest: object) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml", **rest)
    return [(problem.line, problem.what) for problem in caught.value.problems]


def test_defaults():
    config = parse(GOOD, "/etc/raftckpt/cluster.yaml")
    assert config.cluster == "demo"
    assert config.replicas["n2"].peer == Address("127.0.0.1", 7502)
    assert config.data_dir == Path("/etc/raftckpt/data")
    assert config.directory("n1") == Path("/etc/raftckpt/data/n1")
    assert config.fsync
    assert (config.timing.heartbeat_ms, config.timing.election_max_ms) == (50, 600)
    assert config.warnings == ()


def test_everything_given():
    config = parse(
        GOOD
        + """\
data_dir: /var/lib/raftckpt
durability: os
insecure: true
timing: {heartbeat_ms: 20, election_min_ms: 100, election_max_ms: 200}
snapshot: {entries: 500, bytes: 64MiB}
log: {level: debug, format: json}
limits: {connections: 100, connections_per_address: 10, data_bytes: 1GiB}
"""
    )
    assert config.limits == EdgeLimits(100, 10, data_bytes=1 << 30)
    assert not config.fsync
    assert config.insecure
    assert config.timing.election_min_ms == 100
    assert (config.snapshot.entries, config.snapshot.bytes) == (500, 64 << 20)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert [warning.split(": ")[1] for warning in config.warnings] == [
        "durability os", "insecure", "insecure"
    ]  # fmt: skip
    assert "durability os" in config.warnings[0]


def test_routes_say_where_other_nodes_are_reached_from_here():
    assert parse(GOOD).routes == {}
    config = parse(GOOD + 'routes:\n  n3: "10.1.0.3:7501"\n  n9: "[::1]:80"\n')
    assert config.routes == {"n3": Address("10.1.0.3", 7501), "n9": Address("::1", 80)}


BAD = [
    (GOOD + "limits: {connections: 0}\n", 6, "limits.connections must be 1.."),
    (GOOD + "limits: {receive_bytes: 1KiB}\n", 6, "limits.receive_bytes must be"),
    # text, line, part of the message
    (GOOD + "clustre: x\n", 6, "unknown key clustre"),
    (GOOD + "timing: {hartbeat_ms: 5}\n", 6, "unknown key timing.hartbeat_ms"),
    (GOOD + "log:\n  level: loud\n", 7, "log.level must be one of"),
    (GOOD + "cluster: again\n", 6, "cluster is given twice (first in line 1)"),
    (
        GOOD + '  n1: {client: "127.0.0.1:1", peer: "127.0.0.1:2"}\n',
        6,
        "n1 is given twice (first in line 3)",
    ),
    (GOOD + "durability: maybe\n", 6, "durability must be one of fsync, os"),
    (GOOD + "routes: 5\n", 6, "routes must map node ids to addresses"),
    (GOOD + "routes: [n1]\n", 6, "routes must map node ids to addresses"),
    (GOOD + "routes:\n  n1: {peer: 5}\n", 7, "routes.n1: "),
    (GOOD + "routes:\n  n1: 7501\n", 7, "routes.n1: "),
    (GOOD + 'routes:\n  n1: "10.1.0.2"\n', 7, "routes.n1: "),
    (GOOD + 'routes:\n  "n 1": "10.1.0.2:1"\n', 7, "routes.n 1: "),
    (GOOD + "insecure: 1\n", 6, "insecure must be true or false"),
    (GOOD + "insecure: 'yes'\n", 6, "insecure must be true or false"),
    (GOOD + "data_dir: [a]\n", 6, "data_dir must be a plain value"),
    (GOOD + "data_dir: 5\n", 6, "data_dir must be text"),
    (GOOD + "timing: 5\n", 6, "timing must be a mapping"),
    (GOOD + "timing:\n  heartbeat_ms: fast\n", 7, "must be a whole number"),
    (GOOD + "timing:\n  heartbeat_ms: 1.5\n", 7, "must be a whole number"),
    (GOOD + "timing:\n  heartbeat_ms: true\n", 7, "must be a whole number"),
    (GOOD + "timing:\n  heartbeat_ms: 0\n", 7, "must be 5..60000"),
    (GOOD + "timing:\n  heartbeat_ms: 100\n", 7, "not above three heartbeats"),
    (GOOD + "timing:\n  election_min_ms: 150\n", 7, "not above three heartbeats"),
    (GOOD + "timing:\n  election_max_ms: 300\n", 7, "not above election_min_ms"),
    (GOOD + "snapshot:\n  bytes: 5 Mb\n", 7, "must be a number of bytes"),
    (GOOD + "snapshot:\n  entries: 1\n", 7, "must be 10.."),
    (GOOD + "  n4: {client: '127.0.0.1:7404'}\n", 6, "replicas.n4 lacks peer"),
    (GOOD + "  n4: 127.0.0.1\n", 6, "replicas.n4 must have client and peer"),
    (GOOD + "  n4: {client: 'a', peer: '127.0.0.1:7504'}\n", 6, "replicas.n4.client: no port"),
    (GOOD + "  n4: {client: '127.0.0.1:0', peer: 'localhost:7504'}\n", 6, "is not a port"),
    (GOOD + "  n4: {client: '127.0.0.1:70000', peer: 'localhost:4'}\n", 6, "is not a port"),
    (GOOD + "  n4: {client: '127.0.0.256:1', peer: 'localhost:4'}\n", 6, "not an IPv4 address"),
    (GOOD + "  n4: {client: '::1:7404', peer: 'localhost:4'}\n", 6, "stands in brackets"),
    (GOOD + "  n4: {client: '[::g]:7404', peer: 'localhost:4'}\n", 6, "not an IPv6 address"),
    (GOOD + "  n4: {client: 'a b:7404', peer: 'localhost:4'}\n", 6, "is not a host"),
    (GOOD + "  n4: {client: 7404, peer: 'localhost:4'}\n", 6, "must be text"),
    (
        GOOD + '  n4: {client: "127.0.0.1:7404", peer: "127.0.0.1:7401"}\n',
        6,
        "127.0.0.1:7401 is replicas.n1.client already (line 3)",
    ),
    (GOOD + '  n4: {client: "127.0.0.1:7404", pier: "127.0.0.1:7504"}\n', 6, "unknown key"),
    (GOOD + '  4: {client: "127.0.0.1:7404", peer: "127.0.0.1:7504"}\n', 6, "key 4 is not text"),
    (GOOD + '  "n 4": {client: "127.0.0.1:7404", peer: "127.0.0.1:7504"}\n', 6, "node id 'n 4'"),
    (GOOD.replace("demo", "''"), 1, "cluster must be text"),
    (GOOD.replace("demo", "a/b"), 1, "a name has 1..64 characters"),
    (GOOD.replace("cluster: demo\n", ""), 0, "cluster is missing"),
    ("cluster: demo\n", 0, "replicas is missing"),
    ("cluster: demo\nreplicas: []\n", 2, "replicas must map node ids"),
    ("cluster: demo\nreplicas: {}\n", 2, "replicas must map node ids"),
    ("", 0, "the file is empty"),
    ("- a\n", 1, "the file is not a mapping"),
    ("cluster: demo\n\treplicas: 1\n", 2, "not valid YAML"),
    (GOOD + "log: {level: &x info, format: *x}\n", 6, "the alias *x is not allowed"),
    (GOOD + "log: {level: !!python/object:os.system info}\n", 6, "is not allowed"),
    (GOOD + "tls: {peer: {}}\n", 6, "tls.peer is empty"),
    (GOOD + "tls:\n  peer:\n    cert: nofile.pem\n", 8, "tls.peer.cert: no file"),
    (GOOD + "tls:\n  peer:\n    cert: nofile.pem\n", 7, "tls.peer lacks key"),
    (GOOD + "tls:\n  peer:\n    cert: nofile.pem\n", 7, "tls.peer lacks ca"),
    (GOOD.replace("127.0.0.1:7502", "10.1.2.3:7502"), 4, "n2.peer 10.1.2.3:7502 is not loopback"),
    (GOOD.replace("127.0.0.1:7402", "db.example:7402"), 4, "n2.client db.example:7402 is not"),
    (
        GOOD
        + "".join(
            f'  m{i}: {{client: "127.0.0.1:{8000 + i}", peer: "127.0.0.1:{8100 + i}"}}\n'
            for i in range(5)
        ),
        2,
        "8 replicas",
    ),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD, ids=[row[2][:40] for row in BAD])
def test_bad_files(text, line, message):
    found = problems(text)
    assert any(at == line and message in what for at, what in found), found


def test_all_errors_are_told_in_order_with_file_line_and_fix():
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("7403", "7401") + "durability: x\nfoo: 1\n", "c.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["c.yaml:5", "c.yaml:6", "c.yaml:7"]
    assert all("; fix: " in line for line in lines)


def test_insecure_allows_other_machines():
    text = GOOD.replace("127.0.0.1", "10.0.0.1") + "insecure: true\n"
    assert parse(text).replicas["n1"].peer.host == "10.0.0.1"


def test_client_tls_without_client_certificates_is_not_enough(tmp_path):
    for name in ("c", "k", "a"):
        (tmp_path / name).write_text("pem")
    text = GOOD.replace("127.0.0.1:74", "10.0.0.1:74") + "tls:\n  client: {cert: c, key: k}\n"
    path = str(tmp_path / "cluster.yaml")
    with pytest.raises(ConfigError, match="with a ca is not set"):
        parse(text, path)
    config = parse(text.replace("key: k", "key: k, ca: a"), path)
    assert config.tls_client is not None
    assert config.tls_client.ca == tmp_path / "a"


def test_even_numbers_of_replicas_warn():
    config = parse(GOOD + '  n4: {client: "127.0.0.1:7404", peer: "127.0.0.1:7504"}\n')
    assert "4 replicas survive no more failures than 3" in config.warnings[0]


def test_flags_beat_environment_beats_file():
    text = GOOD + "log: {level: info}\n"
    environ = {"RAFTCKPT_LOG_LEVEL": "debug", "RAFTCKPT_TIMING_HEARTBEAT_MS": "10"}
    assert parse(text, environ=environ).log.level == "debug"
    assert parse(text, environ=environ).timing.heartbeat_ms == 10
    assert parse(text, environ=environ, overrides={"log.level": "error"}).log.level == "error"
    assert parse(text, overrides={"data_dir": "d"}).data_dir == Path.cwd() / "d"


def test_bad_environment_and_flags_are_named():
    found = problems(GOOD, environ={"RAFTCKPT_SNAPSHOT_BYTES": "lots"}, overrides={"data_dir": ""})
    assert any("RAFTCKPT_SNAPSHOT_BYTES" in what for _, what in found)
    assert any("--data-dir" in what for _, what in found)


def test_load_reads_files(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    assert load(path, environ={}).data_dir == tmp_path / "data"
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.yaml", environ={})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, environ={})


@pytest.mark.parametrize("text", ["[::1]:80", "localhost:1", "a-b.c:65535", "10.0.0.1:22"])
def test_addresses_round_trip(text):
    assert str(parse_address(text)) == text


def test_loopback():
    assert parse_address("[::1]:80").loopback
    assert parse_address("localhost:80").loopback
    assert not parse_address("0.0.0.0:80").loopback
    assert not parse_address("example.org:80").loopback


def test_deep_and_large_files_are_refused():
    assert "nested too deeply" in str(problems("a: " + "[" * 60 + "]" * 60))
    assert "larger than" in str(problems("#" * (1 << 21)))


ONE = "cluster: demo\nreplicas:\n  n1: {%s}\n"
HERE = 'client: "127.0.0.1:1", peer: "127.0.0.1:2"'
THERE = 'client: "10.0.0.1:1", peer: "10.0.0.1:2"'


def test_where_it_listens_and_where_it_is_reached():
    at = parse(ONE % (THERE + ', bind: "0.0.0.0"') + "insecure: true\n").replicas["n1"]
    assert at.listens(at.client) == Address("0.0.0.0", 1)
    assert at.client == Address("10.0.0.1", 1)
    assert parse(ONE % (HERE + ', bind: "::1"')).replicas["n1"].bind == "::1"
    at = parse(ONE % HERE).replicas["n1"]
    assert (at.listens(at.peer), at.admin) == (at.peer, None)
    assert parse(ONE % (HERE + ", admin: '127.0.0.1:3'")).replicas["n1"].admin.port == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('client: "0.0.0.0:1", peer: "127.0.0.1:2"', "nobody can dial it"),
        ('client: "127.0.0.1:1", peer: "[::]:2"', "nobody can dial it"),
        (HERE + ', bind: "0.0.0.0:7"', "not an IPv6 address"),
        (HERE + ', bind: "0.0.0.0"', "anybody could pose as a replica"),
        (HERE + ', bind: "0.0.0.0"', "anybody could read and write"),
        (HERE + ", admin: '127.0.0.1:2'", "is replicas.n1.peer already"),
        (HERE + ", admin: '0.0.0.0:3'", "anybody could look at this replica"),
        (HERE + ", admin: '9401'", "no port"),
    ],
)
def test_what_is_wrong_with_addresses(line, what):
    assert any(what in told for _, told in problems(ONE % line)), problems(ONE % line)


def test_a_wildcard_that_others_were_to_dial_is_told_how_to_write_it():
    with pytest.raises(ConfigError, match=r"and bind: '0\.0\.0\.0' beside it"):
        parse(ONE % 'client: "0.0.0.0:1", peer: "127.0.0.1:2"', "c.yaml")


def test_the_loopback_of_each_host_is_another_one() -> None:
    """Probes and scrapers of three machines may all look at 127.0.0.1:9401."""
    text = "cluster: c\ninsecure: true\nreplicas:\n" + "".join(
        f"  n{n}: {{admin: '127.0.0.1:9401', client: '10.0.0.{n}:7401', peer: '10.0.0.{n}:7501'}}\n"
        for n in (1, 2, 3)
    )
    assert {str(at.admin) for at in parse(text).replicas.values()} == {"127.0.0.1:9401"}
    here = text.replace("10.0.0.", "127.0.0.")
    with pytest.raises(ConfigError, match=r"127.0.0.1:9401 is replicas.n1.admin already"):
        parse(here)
