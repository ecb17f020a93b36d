"""``python -m raftckpt.process``: one replica in the foreground. Exit codes are an interface.

0 stopped by a signal · 1 refused: the data directory is not to be used · 2 usage or configuration ·
70 stopped itself: a broken belief (our bug) · 74 the disk failed or is full · 75 not now: an
address, a name or the directory is not to be had yet. A supervisor starts again after all but 0, 1
and 2.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from raftckpt import limits
from raftckpt.events import EventLog
from raftckpt.node import logs
from raftckpt.node.config import ClusterConfig, ConfigError, load
from raftckpt.node.descriptors import raise_descriptors
from raftckpt.process.life import ReplicaProcess
from raftckpt.raft.peering import StartRefused
from raftckpt.raft.port import Removal
from raftckpt.storage import REJOINS, DiskFailed, DiskFull, InUse, StorageError, Unsupported

__all__ = [
    "EXIT_CONFIG",
    "EXIT_DISK",
    "EXIT_FAILED",
    "EXIT_NOT_NOW",
    "EXIT_REFUSED",
    "main",
    "run",
]

# 70, 74, 75: EX_SOFTWARE, EX_IOERR, EX_TEMPFAIL of <sysexits.h>; 1 and 2 are not to be started
# again
EXIT_REFUSED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_FAILED: Final = 70
EXIT_DISK: Final = 74
EXIT_NOT_NOW: Final = 75

log = EventLog("node")


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def _fail_stop(error: BaseException) -> NoReturn:
    """End the process here and now: nothing more is promised, sent or synced."""
    if isinstance(error, Removal):
        _say(str(error))
        os._exit(0)
    if isinstance(error, StartRefused | Unsupported):
        _say(str(error))
        os._exit(EXIT_REFUSED)
    if isinstance(error, StorageError):
        _say(str(error))
        os._exit(EXIT_DISK)
    _say("".join(traceback.format_exception(error)))
    _say(
        "the replica stopped itself: its state can no longer be trusted\n"
        f"{type(error).__name__}: {error}\n"
        "what was acknowledged is on disk; report the lines above"
    )
    os._exit(EXIT_FAILED)


def run(
    config: ClusterConfig,
    node: str,
    data_dir: Path | None = None,
    joins: str = "",
    found: bool = False,
    reread: Callable[[], ClusterConfig] | None = None,
) -> int:
    """Run one replica until it is told to stop.

    Arguments:
        config: the cluster.
        node: node id of the replica.
        data_dir: root of the data directories, over that of the configuration.
        joins: ``storage.REJOINS`` (it lost its disk) or the token of ``cluster add``: it is let in
            by the cluster, and counts once it has caught up.
        found: a list of one replica is a cluster: found it.
        reread: reads the configuration again (SIGHUP); None: it cannot be read again.

    Returns:
        The exit code; see the module. A replica that stops itself ends the process.
    """
    if node not in config.replicas:
        _say(
            f"{config.path} has no replica {node}\n"
            f"its replicas are {', '.join(config.replicas)}\n"
            "name one of them with --node"
        )
        return EXIT_CONFIG
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    try:
        logs.configure(node, config.log)
    except OSError as error:
        _say(
            f"starting {node} failed\nthe audit stream cannot be written: {error}\n"
            "name a file that this user may write to in log.audit"
        )
        return EXIT_REFUSED
    for warning in config.warnings:
        log.warning("configuration", why=warning)
    raise_descriptors(config.limits.connections + limits.DESCRIPTORS_RESERVED)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(config, node, joins, found, reread))
    except ConfigError as error:
        _say(str(error))
        return EXIT_CONFIG
    except StorageError as error:
        _say(str(error))
        return _exit_code(error)
    except OSError as error:
        at = config.replicas[node]
        _say(
            f"starting {node} failed\n{error}\n"
            f"check that {at.listens(at.client)} and {at.listens(at.peer)} are addresses of this "
            "host, that nothing else uses them, and that its names can be resolved"
        )
        return EXIT_REFUSED if isinstance(error, PermissionError) else EXIT_NOT_NOW
    return 0


def _exit_code(error: StorageError) -> int:
    """Whether what stands against a start may pass by itself."""
    if isinstance(error, InUse):
        return EXIT_NOT_NOW
    return EXIT_DISK if isinstance(error, DiskFull | DiskFailed) else EXIT_REFUSED


async def _serve(
    config: ClusterConfig,
    node: str,
    joins: str,
    found: bool,
    reread: Callable[[], ClusterConfig] | None,
) -> None:
    replica = ReplicaProcess(
        config, node, joins=joins, found=found, failed=_fail_stop, reread=reread
    )
    await replica.run()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="raftckpt serve", description="Run one replica in the foreground."
    )
    environ = os.environ
    parser.add_argument("--config", default=environ.get("RAFTCKPT_CONFIG", "cluster.yaml"))
    parser.add_argument("--node", default=environ.get("RAFTCKPT_NODE"))
    parser.add_argument("--data-dir", help="root of the data directories (default: of the file)")
    let_in = parser.add_mutually_exclusive_group()
    let_in.add_argument(
        "--rejoin",
        dest="joins",
        action="store_const",
        const=REJOINS,
        default="",
        help="come back with an empty directory after a lost disk",
    )
    let_in.add_argument("--join", dest="joins", metavar="TOKEN", help="the token of cluster add")
    let_in.add_argument("--found", action="store_true", help="found a cluster of this one replica")
    arguments = parser.parse_args(argv)
    if arguments.node is None:
        parser.error("--node (or RAFTCKPT_NODE) says which replica this is")

    def read() -> ClusterConfig:
        return load(arguments.config, overrides={"data_dir": arguments.data_dir})

    try:
        config = read()
    except ConfigError as error:
        _say(str(error))
        return EXIT_CONFIG
    return run(config, arguments.node, joins=arguments.joins, found=arguments.found, reread=read)
