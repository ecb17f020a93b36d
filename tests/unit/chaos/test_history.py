"""Histories on disk."""

from __future__ import annotations

from raftckpt.chaos.history import (
    ABSENT,
    Asked,
    ContentDigest,
    Kind,
    Outcome,
    Recorder,
    SectionPart,
    load,
    payload,
    seen_of,
    show,
)


def test_what_is_recorded_is_loaded(tmp_path) -> None:
    path = tmp_path / "c1.jsonl"
    recorder = Recorder(path)
    put = recorder.begin("c1.1", Kind.PUT, 7, [Asked("k", 0, "c1-1", 10)], 100)
    read = recorder.begin("c1.1", Kind.READ, 7, [Asked("k"), Asked("j")], 150)
    slow = recorder.begin("c1.1", Kind.WRITE, 7, [Asked("k", 2, "c1-2", 4)], 160, ttl_ns=5)
    recorder.accept(slow, 170)
    recorder.end(put, Outcome.OK, 200, revision=3)
    recorder.end(read, Outcome.OK, 210, revision=3, seen=[["k", "c1-1|c1-1|"], ["j", None]])
    open_ = recorder.begin("c1.1", Kind.OPEN, 0, [Asked("name")], 220)
    recorder.end(open_, Outcome.UNKNOWN, 230)
    recorder.close()
    one, two, three, four = load([path])
    assert (one.session, one.kind, one.unit, one.number) == ("c1.1", Kind.PUT, 7, 0)
    assert one.parts == (SectionPart("k", 0, b"c1-1|c1-1|"),)
    assert (one.invoked, one.returned, one.outcome, one.revision) == (100, 200, Outcome.OK, 3)
    assert one.changes
    assert two.parts == (SectionPart("k", 0, b"c1-1|c1-1|"), SectionPart("j", 0, ABSENT))
    assert (three.outcome, three.returned, three.accepted, three.ttl_ns) == (
        Outcome.UNKNOWN,
        None,
        170,
        5,
    )
    assert three.possible
    assert (four.outcome, four.returned) == (Outcome.UNKNOWN, None)


def test_conditions_and_parts_are_recorded(tmp_path) -> None:
    path = tmp_path / "c1.jsonl"
    recorder = Recorder(path)
    asked = [
        Asked("k", 0, "c1-1", 5, Kind.PUT, 7),
        Asked("j", 0, "c1-2", 5, Kind.APPEND),
        Asked("i", kind=Kind.DELETE),
    ]
    done = recorder.begin("c1.1", Kind.TRANSACTION, 7, asked, 100)
    recorder.end(done, Outcome.OK, 110, revision=9, results=[None, 3, None])
    refused = recorder.begin("c1.1", Kind.PUT, 7, [Asked("k", 0, "c1-3", 5, revision=0)], 120)
    recorder.end(refused, Outcome.REFUSED, 130, reason="conflict", index=None, value=9)
    read = recorder.begin("c1.1", Kind.READ, 7, [Asked("k")], 140)
    recorder.end(read, Outcome.OK, 150, seen=[["k", "c1-1|", 9]])
    recorder.close()
    one, two, three = load([path])
    assert one.parts == (
        SectionPart("k", 0, b"c1-1|", Kind.PUT, 7),
        SectionPart("j", 0, b"c1-2|", Kind.APPEND),
        SectionPart("i", 0, b"", Kind.DELETE),
    )
    assert (one.kind, one.results, one.changes) == (Kind.TRANSACTION, (None, 3, None), True)
    assert two.parts == (SectionPart("k", 0, b"c1-3|", None, 0),)
    assert (two.reason, two.value) == ("conflict", 9)
    assert (three.parts, three.revision) == ((SectionPart("k", 0, b"c1-1|", None, 9),), None)


def test_histories_without_conditions_are_what_they_were(tmp_path) -> None:
    """Written as ever, and old ones are read."""
    path = tmp_path / "c1.jsonl"
    recorder = Recorder(path)
    put = recorder.begin("c1.1", Kind.PUT, 7, [Asked("k", 0, "c1-1", 10)], 100)
    recorder.end(put, Outcome.OK, 200, revision=3)
    recorder.close()
    old = b'[1,"c1.1","put",7,[["k",0,"c1-1",10]],100,{}]\n[-1,200,"ok",{"revision":3}]\n'
    assert path.read_bytes() == old
    (only,) = load([path])
    assert only.parts == (SectionPart("k", 0, b"c1-1|c1-1|"),)
    assert (only.results, only.value) == ((), None)


def test_line_that_was_cut_off_by_a_kill_had_no_effect(tmp_path) -> None:
    path = tmp_path / "c1.jsonl"
    recorder = Recorder(path)
    number = recorder.begin("c1.1", Kind.PUT, 7, [Asked("k", 0, "c1-1", 10)], 100)
    recorder.end(number, Outcome.REFUSED, 110, reason="limit", index=0)
    recorder.close()
    with path.open("ab") as file:
        file.write(b'[2,"c1.1","put",7,[["k"')
    (only,) = load([path])
    assert (only.outcome, only.reason, only.index) == (Outcome.REFUSED, "limit", 0)


def test_numbers_are_unique_over_files(tmp_path) -> None:
    for name in ("a", "b"):
        recorder = Recorder(tmp_path / name)
        recorder.begin(name, Kind.PUT, 1, [], 0)
        recorder.begin(name, Kind.PUT, 1, [], 0)
        recorder.close()
    operations = load([tmp_path / "a", tmp_path / "b"])
    assert [op.number for op in operations] == [0, 1, 2, 3]


def test_contents() -> None:
    assert payload("ab", 7) == b"ab|ab|a"
    assert payload("ab", 0) == b""
    assert seen_of(b"x" * 64) == b"x" * 64
    long = payload("ab", 65)
    assert seen_of(long) == ContentDigest.of(long)
    assert show(long) == "'ab|ab|ab|ab|ab|ab|ab|ab|'... (65 bytes)"
    assert show(b"ab") == "'ab'"
    assert show(ABSENT) == "absent"
    assert show(ContentDigest.of(long)).startswith("65 bytes #")
