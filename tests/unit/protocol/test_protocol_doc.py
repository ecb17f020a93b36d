"""What docs/reference/protocol.md says is what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from raftckpt.client import outcomes
from raftckpt.model.changes import ChangeKind
from raftckpt.protocol.frames import MessageStream, pack_messages, reply_frames
from raftckpt.protocol.kinds import PartKind
from raftckpt.protocol.operations import OPERATIONS, REQUESTS
from tests.messages import check_request
from tools import protocol_tables

TABLE_ROW = re.compile(r"^\| \d+ \| [A-Z_]{4,}.*\n", re.MULTILINE)
TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "protocol.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}.*\n((?:.|\n)*?)^```$", TEXT, re.MULTILINE)


def test_the_byte_examples() -> None:
    examples = blocks("example")
    assert len(examples) == 4
    for example in examples:
        first, rest = example.split("\n", 1)
        messages, data = ast.literal_eval(first), bytes.fromhex(rest)
        assert MessageStream().feed(data) == messages
        assert pack_messages(messages) == data
        for message in messages:
            assert message[0] == 0 or check_request(message) is None


def test_the_example_of_fragments() -> None:
    (example,) = blocks("fragments")
    first, rest = example.split("\n", 1)
    messages, data = ast.literal_eval(first), bytes.fromhex(rest)
    assert MessageStream().feed(data) == messages
    assert b"".join(reply_frames(messages[0], 16)) == data
    assert "two fragments" in TEXT
    assert len(list(reply_frames(messages[0], 16))) == 2


def test_the_tables_name_every_message_with_its_fields() -> None:
    rows = {
        int(tag): (name, fields or "")
        for tag, name, fields in re.findall(
            r"^\| (\d+) \| ([A-Z_]+)(?=[: ]):? ?(?:`([^`]*)`)?",
            TEXT,
            re.MULTILINE,
        )
    }
    requests = {row.tag: row for kind, row in OPERATIONS.items() if kind in REQUESTS}
    assert set(rows) == set(requests)
    for tag, row in requests.items():
        name, fields = rows[tag]
        assert name == row.name
        said = [field.strip() for field in fields.split(",") if field.strip()]
        assert said == list(row.fields), name


def test_the_tables_are_made_from_the_operations() -> None:
    assert set(re.findall(r"^<!-- table: (\w+) -->$", TEXT, re.MULTILINE)) == {
        *protocol_tables.TABLES
    }
    assert protocol_tables.rewritten(TEXT) == TEXT, "python -m tools.protocol_tables --write"


def test_a_table_that_is_old_is_noticed() -> None:
    old = TEXT.replace("| 24 | SECTION_PUT", "| 24 | SECTION_SET")
    assert old != TEXT
    assert protocol_tables.rewritten(old) == TEXT
    assert protocol_tables.rewritten(TEXT.replace(TABLE_ROW.findall(TEXT)[0], "")) == TEXT


def test_every_kind_of_part_and_change_is_in_its_table() -> None:
    parts = re.findall(r"^\| (\d+) (\w+)[^|]*\|", TEXT, re.MULTILINE)
    assert {(int(number), name.upper()) for number, name in parts} == {
        (kind.value, kind.name) for kind in PartKind
    }
    changes = TEXT.partition("| kind | what |")[2].partition("\n\n")[0]
    numbers = re.findall(r"^\| (\d+) \|", changes, re.MULTILINE)
    assert [int(number) for number in numbers] == [kind.value for kind in ChangeKind]


def test_the_reasons_that_leave_a_number_unused() -> None:
    said = re.search(r"except: every TRY_AGAIN, and the reasons\s+((?:`\"\w+\"`[,.\s]+)+)", TEXT)
    assert said is not None
    assert set(re.findall(r"\w+", said.group(1))) == set(outcomes._NOT_RECORDED)
