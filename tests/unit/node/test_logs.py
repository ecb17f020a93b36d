"""Events as lines: text and JSON, levels that change, the audit stream in a file of its own."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from raftckpt.events import EventLog, LogEvent
from raftckpt.node import logs
from raftckpt.node.config import LOG_ROOMS, LogConfig
from raftckpt.server.audit import audit

log = EventLog("links")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    names = ("raftckpt", "asyncio", *(f"raftckpt.{room}" for room in (*LOG_ROOMS, "audit")))
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    raises = logging.raiseExceptions
    yield
    logging.raiseExceptions = raises
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_text_is_one_line_that_nobody_can_forge() -> None:
    stream = io.StringIO()
    logs.configure("n1", LogConfig(), stream)
    log.info(
        "connected", peer="n2", why='a "b" c=d\nerror forged\u202e', n=3, r=0.5, ok=True, x=None
    )
    (line,) = stream.getvalue().splitlines()
    stamp, _, rest = line.partition(" ")
    assert len(stamp) == len("2026-01-01T00:00:00.000+00:00")
    assert rest == (
        'info n1 links connected peer=n2 why="a \\"b\\" c=d\\\\nerror forged\\\\u202e" '
        "n=3 r=0.5 ok=true x=none"
    )


def test_json_keeps_what_things_are() -> None:
    stream = io.StringIO()
    logs.configure("n1", LogConfig(format="json"), stream)
    log.warning("far", count=3, seconds=0.25, up=False, leader=None, why='say "no"\n', level=7)
    log.info("silent", since=float("inf"))
    logging.getLogger("asyncio").warning("of %s", "a library")
    first, second, third = lines(stream)
    assert first.pop("time")
    assert first == {
        "level": "warning", "node": "n1", "room": "links", "event": "far", "count": 3,
        "seconds": 0.25, "up": False, "leader": None, "why": 'say "no"\n', "level_": 7,
    }  # fmt: skip
    assert second["since"] == "inf"
    assert (third["event"], third["room"]) == ("of a library", "asyncio")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_one_line_too(form: str) -> None:
    stream = io.StringIO()
    logs.configure("n1", LogConfig(format=form), stream)
    try:
        raise ValueError("no\nmore")
    except ValueError as error:
        log.error("unexpected", what="it", raised=error)
    (line,) = stream.getvalue().splitlines()
    assert "Traceback" in line
    assert "ValueError: no" in line


def test_levels_change_while_running_and_single_rooms_have_their_own() -> None:
    stream = io.StringIO()
    logs.configure("n1", LogConfig(level="warning", rooms={"links": "debug"}), stream)
    other = EventLog("raft")
    log.debug("heard")
    other.info("not_heard")
    logs.configure("n1", LogConfig(level="info"), stream)
    log.debug("not_heard")
    other.info("heard")
    assert [line.split()[4] for line in stream.getvalue().splitlines()] == ["heard", "heard"]


def test_what_is_not_written_is_not_put_together() -> None:
    class Costly(str):
        def __str__(self) -> str:
            raise AssertionError

        isprintable = __str__  # type: ignore[assignment]

    logs.configure("n1", LogConfig(), io.StringIO())
    log.debug("hidden", what=Costly("x"))


def test_the_audit_stream_goes_apart_and_follows_its_file(tmp_path) -> None:
    stream, file = io.StringIO(), tmp_path / "audit.log"
    logs.configure("n1", LogConfig(level="error", format="json", audit=file), stream)
    audit("granted", principal="ann", rights=3)
    moved = file.rename(tmp_path / "audit.log.1")
    audit("refused", warn=True, principal="bob")
    assert json.loads(moved.read_text())["rights"] == 3
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["room"] == "audit"
    assert file.stat().st_mode & 0o777 == 0o640
    assert stream.getvalue() == ""
    logs.configure("n1", LogConfig(audit=file, audit_level="warning"), stream)
    audit("granted", principal="ann")
    audit("refused", warn=True, principal="eve")
    assert [line.split()[4] for line in file.read_text().splitlines()[1:]] == ["refused"]


def test_the_audit_stream_is_with_the_others_without_a_file(tmp_path) -> None:
    stream = io.StringIO()
    logs.configure("n1", LogConfig(level="error"), stream)
    audit("granted", principal="ann")
    assert "info n1 audit granted principal=ann" in stream.getvalue()
    with pytest.raises(OSError, match="No such file"):
        logs.configure("n1", LogConfig(audit=tmp_path / "none" / "audit.log"), stream)
    audit("granted", principal="bob")
    assert "principal=bob" in stream.getvalue()


def test_what_the_audit_file_does_not_take_is_not_lost(tmp_path, capsys) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    logs.configure("n1", LogConfig(audit=directory / "audit.log"), io.StringIO())
    (directory / "audit.log").unlink()
    directory.rmdir()
    audit("refused", principal="eve")
    assert "refused principal=eve" in capsys.readouterr().err
    directory.mkdir()
    audit("refused", principal="bob")
    assert "principal=bob" in (directory / "audit.log").read_text()


def test_the_record_says_who_logs() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("raftckpt.links").addHandler(handler)
    log.error("here", at=1)
    (record,) = records
    assert record.filename == "test_logs.py"
    assert isinstance(record.msg, LogEvent)
    assert record.getMessage() == "here at=1"
