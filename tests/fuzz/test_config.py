"""Configuration that is wrong in every way: the typed error with its lines, never anything else."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raftckpt.client.endpoints import parse_endpoints
from raftckpt.errors import CheckpointError
from raftckpt.node.config import ClusterConfig, ConfigError, load, parse
from tests.fuzz.profile import fuzzing

GOOD = """\
cluster: demo
data_dir: data
durability: fsync
replicas:
  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}
  n2: {client: "127.0.0.1:7402", peer: "127.0.0.1:7502"}
  n3: {client: "[::1]:7403", peer: "127.0.0.1:7503"}
timing: {heartbeat_ms: 50, election_min_ms: 300, election_max_ms: 600}
snapshot: {entries: 1000, bytes: 10000000}
log: {level: info, format: text}
"""
KEYS = st.sampled_from(
    ["cluster", "data_dir", "durability", "replicas", "n1", "client", "peer", "timing", "snapshot",
     "entries", "bytes", "heartbeat_ms", "tls", "cert", "key", "ca", "log", "level", "insecure"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=30),
    st.sampled_from(["127.0.0.1:7401", "[::1]:1", "h:0", ":1", "a:b:c", "~nobody-here/x", "\0", "~",
                     "fsync", "os", "/", "1e400", "é:7401", "x" * 300 + ":1"]),
)  # fmt: skip
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, KEYS, st.text(max_size=5), st.integers()), inner),
    ),
    max_leaves=12,
)
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
)
SPECIAL = {
    "a bomb of aliases": BOMB,
    "an alias of itself": "a: &a [*a]\n",
    "merge keys": "a: &a {cluster: x}\n<<: *a\n",
    "a key twice": GOOD + "cluster: other\n",
    "a replica twice": GOOD.replace("  n2:", "  n1:"),
    "python objects": "cluster: !!python/object/apply:os.system [true]\n",
    "binary": "cluster: !!binary aGVsbG8=\n",
    "binary that is none": "cluster: !!binary '*'\n",
    "a number that is none": "cluster: !!int x\n",
    "a time that is none": "cluster: !!timestamp 2026-99-99\n",
    "a time": "cluster: 2026-13-45\ndata_dir: 2026-02-30\n",
    "a set": "cluster: !!set {a, b}\n",
    "two documents": GOOD + "---\n" + GOOD,
    "deep": "a: " + "[" * 3000 + "]" * 3000,
    "deep maps": "{a: " * 3000 + "}" * 3000,
    "deep without ends": "[" * 100_000,
    "only tabs": "\t\t\t",
    "nothing": "",
    "a byte order mark": "\ufeff" + GOOD,
    "zeros": "\0" * 100,
    "a long number": "cluster: " + "9" * 5000,
    "sexagesimal": "timing: {heartbeat_ms: 1:30:00}",
    "no home": GOOD.replace("data_dir: data", "data_dir: ~nobody-here/x"),
    "a zero in a path": GOOD.replace("data_dir: data", 'data_dir: "a\\0b"'),
    "no such home of a key": GOOD + "tls: {client: {cert: ~nobody-here/c, key: k, ca: c}}\n",
    "a zero in a path of a key": GOOD + 'tls: {client: {cert: "\\0", key: "\\0", ca: "\\0"}}\n',
    "a path too long": GOOD + f"tls: {{client: {{cert: {'x' * 5000}, key: k, ca: c}}}}\n",
    "unicode": GOOD.replace("demo", "dé\U0001f600mo\u202e"),
    "a lone surrogate": 'cluster: "\\ud800"\n',
    "a comment without end": "#" * 300_000,
}


def judge(text: str) -> ClusterConfig | None:
    try:
        return parse(text)
    except ConfigError as refusal:
        error = refusal
    assert error.problems
    assert str(error).encode("utf-8", "backslashreplace")
    return None


def test_the_good_one_is_good() -> None:
    assert judge(GOOD) is not None


@pytest.mark.parametrize("what", SPECIAL)
def test_special(what: str) -> None:
    judge(SPECIAL[what])


@fuzzing(150)
@given(TREES)
def test_trees_of_anything(tree: Any) -> None:
    judge(yaml.safe_dump(tree, allow_unicode=True))


@fuzzing(150)
@given(st.lists(st.tuples(st.integers(0, 7), SCALARS), min_size=1, max_size=3))
def test_a_good_one_with_values_replaced(changes: list[tuple[int, Any]]) -> None:
    config = yaml.safe_load(GOOD)
    for place, value in changes:
        keys = list(config)
        target: Any = config[keys[place % len(keys)]]
        if isinstance(target, dict) and place % 2:
            target[sorted(target)[0]] = value
        else:
            config[keys[place % len(keys)]] = value
    judge(yaml.safe_dump(config, allow_unicode=True))


@fuzzing(150)
@given(st.integers(0, len(GOOD)), st.integers(0, 30), st.text(max_size=20))
def test_a_good_one_with_text_replaced(start: int, length: int, other: str) -> None:
    judge(GOOD[:start] + other + GOOD[start + length :])


@fuzzing(60)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda t: t.encode("utf-16"))))
def test_files_of_bytes(data: bytes) -> None:
    path = Path(judge_path)
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load(path)


judge_path = ""


@pytest.fixture(autouse=True)
def _path(tmp_path_factory: pytest.TempPathFactory) -> None:
    global judge_path
    judge_path = str(tmp_path_factory.mktemp("config") / "cluster.yaml")


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", "a\0b", tmp_path / ("x" * 300), ""):
        with pytest.raises(ConfigError):
            load(path)


@fuzzing(100)
@given(
    st.dictionaries(
        st.sampled_from(["RAFTCKPT_DATA_DIR", "RAFTCKPT_DURABILITY", "RAFTCKPT_LOG_LEVEL",
                         "RAFTCKPT_TIMING_HEARTBEAT_MS", "RAFTCKPT_INSECURE", "RAFTCKPT_NODE",
                         "RAFTCKPT_SNAPSHOT_ENTRIES", "RAFTCKPT_CLUSTER"]),
        st.text(max_size=20),
    ),
    st.dictionaries(st.sampled_from(["data_dir", "durability"]), st.text(max_size=20)),
)  # fmt: skip
def test_environment_and_flags(environ: dict[str, str], overrides: dict[str, str | None]) -> None:
    with contextlib.suppress(ConfigError):
        assert parse(GOOD, environ=environ, overrides=overrides).cluster


@fuzzing(200)
@given(st.one_of(st.text(max_size=40), st.lists(st.one_of(SCALARS, st.binary()), max_size=3)))
def test_endpoints_of_anything(endpoints: Any) -> None:
    with contextlib.suppress(CheckpointError):
        assert parse_endpoints(endpoints)


@pytest.mark.parametrize(
    "text",
    [
        *SPECIAL.values(),
        BOMB + "replicas: {n1: {client: *y}}\n",
        "replicas: {n1: {client: " + "[" * 3000 + "]" * 3000 + "}}",
        "replicas: {n1: {client: 5}}\n",
        "replicas: {n1: {client: 127.0.0.1:99999}}\n",
        "replicas: {n1: {client: '127.0.0.1:" + "9" * 5000 + "'}}\n",
        "replicas: [n1]\n",
        "replicas: {n1: [x]}\n",
        "replicas: {[1]: {client: 'h:1'}}\n",
    ],
    ids=range(len(SPECIAL) + 8),
)
def test_the_clients_reading_of_a_cluster_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(CheckpointError):
        assert parse_endpoints(str(path))
