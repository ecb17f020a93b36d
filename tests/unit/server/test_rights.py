"""Who a connection is, and what is seen of what one may not see."""

from __future__ import annotations

import sys
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest

from raftckpt.model import queries
from raftckpt.net.certificates import client_name
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.frames import pack_messages
from raftckpt.protocol.operations import OPERATIONS
from raftckpt.server import dispatch
from tests.golden.product import GoldenPort
from tests.unit.server.rights_port import ALL_RIGHTS, NEVER, RightsPort, token_of

ATTRIBUTES = [1, 0, (1 << 63) - 1, 100, 1000, 64]
ACCESS, NOT_EXIST, TRY_AGAIN = 11, 12, 6


def refusal(reply: list[Any]) -> tuple[int, str]:
    return reply[2], reply[3][0]


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "op",
        "rck1.op",
        "rck1.op.",
        f"rck1.nobody.{'s' * 43}",
        f"rck1.op.{'t' * 43}",
        f"rck2.op.{'s' * 43}",
        token_of("op") + "x",
        "\N{SNOWMAN}" * 100,
    ],
)
def test_without_a_good_token_nobody_gets_in(token: str | None) -> None:
    port = RightsPort()
    stranger = port.caller("stranger", token)
    assert refusal(stranger.hello) == (ACCESS, "credentials")


def test_while_rights_are_off_a_token_is_refused() -> None:
    port = RightsPort()
    assert port.operator.do(60, False, None)[2] == 1
    assert refusal(port.caller("one", token_of("op")).hello) == (ACCESS, "token")
    assert port.caller("two", None).hello[2] == 1


def test_a_replica_that_may_be_behind_refuses_nobody_for_good() -> None:
    port = RightsPort()
    port.event("lose")
    port.world.log.lead(None)
    assert refusal(port.caller("new", token_of("new")).hello) == (TRY_AGAIN, "behind")


def test_switching_on_ends_the_sessions_of_nobody() -> None:
    port = RightsPort()
    assert ("first", ["session_lost", "revoked"]) in port.notices
    assert [each.name for each in port.machine.sessions.values()] == ["operator"]
    first = port.connection("first")
    assert first.session is None


def test_a_session_that_was_on_its_way_when_it_was_switched_on_is_refused() -> None:
    port = GoldenPort()
    secret = b"q" * 16
    index = port._world.replica.machine.applied_index
    machine = port._world.replica.machine
    machine.access.on = True
    late = [1, 0, 0, 0, secret, "late", "n1", 10**9, 0]
    (result,) = machine.apply(index + 1, encode_batch(5, [late]))
    assert (result.code, result.value.reason) == (ACCESS, "credentials")


def test_a_session_is_attached_and_witnessed_by_its_own_principal_only() -> None:
    port = RightsPort()
    owner = port.tenant("owner", "t/", ALL_RIGHTS)
    port.tenant("thief", "u/", ALL_RIGHTS)
    thief = port.caller("thief2", token_of("thief"))
    assert refusal(thief.say(201, owner.session, owner.secret)) == (ACCESS, "secret")
    assert refusal(thief.say(119, owner.session, owner.secret)) == (ACCESS, "secret")
    again = port.caller("owner2", token_of("owner"))
    assert again.say(201, owner.session, owner.secret)[2] == 1
    assert again.say(119, owner.session, owner.secret)[2] == 1


def test_the_same_secret_opens_no_session_of_another() -> None:
    port = RightsPort()
    owner = port.tenant("owner", "t/", ALL_RIGHTS)
    port.tenant("thief", "u/", ALL_RIGHTS)
    thief = port.caller("thief2", token_of("thief"))
    thief.secret = owner.secret
    assert refusal(thief.open_session()) == (ACCESS, "secret")


def test_a_second_hello_makes_nobody_somebody_else() -> None:
    port = RightsPort()
    tenant = port.tenant("tenant", "t/", ALL_RIGHTS)
    assert tenant.say(200, [1], "tenant", token_of("tenant"))[2] == 1
    assert refusal(tenant.say(200, [1], "tenant", token_of("op"))) == (ACCESS, "credentials")


def test_a_token_that_ended_lets_nobody_in_and_ends_who_is_in() -> None:
    port = RightsPort()
    now_ns = port.world.clock.wall_ns()
    digest = sha256(token_of("brief").encode()).digest()
    made = port.operator.do(61, "brief", "brief", digest, now_ns + 5 * 10**9, False, None)
    assert made[2] == 1
    brief = port.caller("brief", token_of("brief"))
    assert brief.hello[2] == 1
    port.world.clock.stand_still(6.0)
    port.listener._part()
    port.told("operator", [202, 9999])
    assert ("brief", ["session_lost", "revoked"]) in port.notices
    assert refusal(port.caller("late", token_of("brief")).hello) == (ACCESS, "credentials")


@pytest.mark.parametrize("record", sorted(dispatch._LOCAL, key=lambda record: record.__name__))
def test_a_cluster_without_rights_is_changed_over_a_private_port(record: type[Any]) -> None:
    spec = OPERATIONS[record]
    good = next(spec.examples())
    fields = [getattr(good, name) for name in spec.fields]
    port = RightsPort()
    assert port.operator.do(60, False, None)[2] == 1
    stranger = port.caller("stranger", None)
    port.connection("stranger").private = False
    assert refusal(stranger.send(record, fields)) == (ACCESS, "not_local")
    port.connection("stranger").private = True
    reply = stranger.send(record, fields)
    assert reply[2] == 1 or refusal(reply)[1] != "not_local"


def test_rights_are_changed_over_a_private_port_only_while_they_are_off() -> None:
    port = RightsPort()
    assert port.operator.do(60, False, None)[2] == 1
    stranger = port.caller("stranger", None)
    port.connection("stranger").private = False
    assert stranger.open_session()[2] == 1
    assert refusal(stranger.do(60, True, None)) == (ACCESS, "not_local")
    stranger.sequence -= 1  # it was not used up
    port.connection("stranger").private = True
    assert stranger.do(60, True, None)[2] == 1


def test_listings_show_what_may_be_read_and_openers_of_ones_own() -> None:
    port = RightsPort()
    one = port.tenant("one", "one/", ALL_RIGHTS)
    two = port.tenant("two", "two/", ALL_RIGHTS)
    for tenant, name in ((one, "one/a"), (two, "two/b")):
        assert tenant.do(10, name, 7, ATTRIBUTES)[2] == 1
        assert tenant.do(50, f"{tenant.name}/group", "c", 0, 10**9, 0)[2] == 1
    for listing in ([104, 0, 0], [127, 0, 0, "", None, 10]):
        assert [row[1] for row in one.say(*listing)[3][1]] == ["one/a"]
        assert [row[1] for row in two.say(*listing)[3][1]] == ["two/b"]
        assert port.operator.say(*listing)[3][1] == []
    assert [row["group"] for row in one.say(115, 0, 0)[3][1]] == ["one/group"]
    port.allow("two", "one/", 1)
    status = two.say(102, 0, 0, "one/a")[3][1]
    assert [opener[1:] for opener in status[7]] == [["", "", 1, 1]]
    (member,) = two.say(116, 0, 0, "one/group")[3][1]["members"]
    assert (member["session_name"], member["node"]) == ("", "")
    status = one.say(102, 0, 0, "one/a")[3][1]
    assert [opener[1:] for opener in status[7]] == [["one", "n1", 1, 1]]


def test_a_tracker_whose_right_is_taken_away_ends_with_the_reason() -> None:
    port = RightsPort()
    tenant = port.tenant("tenant", "t/", ALL_RIGHTS)
    tenant.do(10, "t/a", 7, ATTRIBUTES)
    assert tenant.say(110, "t/a", None, True, 0)[2] == 1
    tracker = tenant.request
    port.told("tenant", [111, 7777, tracker, 1 << 40])
    port.allow("tenant", "t/", 2)
    told = [message for name, message in port.heard if name == "tenant"]
    ends = [reply[1:4] for reply in told if reply[0] == 0 and reply[2] == ACCESS]
    assert sorted(ends) == [
        [tracker, ACCESS, ["revoked", None, None]],
        [7777, ACCESS, ["revoked", None, None]],
    ]
    connection = port.connection("tenant")
    assert connection.outbox.owed == 0
    assert port.listener.tracking.count == 0
    tenant.do(24, 1, b"x", b"not seen")
    assert all(message[0] != 3 for message in port.told("tenant", [202, 8889]))


def test_the_end_of_a_checkpoint_is_told_to_who_could_read_it() -> None:
    port = RightsPort()
    tenant = port.tenant("tenant", "t/", ALL_RIGHTS)
    other = port.tenant("other", "u/", ALL_RIGHTS)
    _, uid, *_ = tenant.do(10, "t/a", 7, ATTRIBUTES)[3]
    tenant.do(12, "t/a")
    tenant.do(11, 1)
    assert uid not in port.machine.checkpoints
    assert tenant.say(110, uid, 0, False, 0)[2] == 1
    assert refusal(other.say(110, uid, 0, False, 0)) == (NOT_EXIST, "checkpoint_missing")


def test_a_component_whose_group_may_not_be_written_is_taken_out_and_fenced() -> None:
    port = RightsPort()
    tenant = port.tenant("tenant", "t/", ALL_RIGHTS)
    heir = port.tenant("heir", "t/", ALL_RIGHTS)
    assert tenant.do(50, "lease:t/lock", "a", 0, 10**9, 0)[2] == 1  # as locks are named
    assert heir.do(50, "lease:t/lock", "b", 1, 10**9, 0)[2] == 1
    port.allow("tenant", "t/", 1)
    group = port.machine.groups.by_name["lease:t/lock"]
    assert group.active == "b"
    assert port.machine.sessions[tenant.session].fences == 1


# --- what may not be seen is not there -----------------------------------------------------------

HIDDEN: dict[str, tuple[str, list[Any]]] = {
    "open": ("do", [10, "{}", 3, None]),
    "create": ("do", [10, "{}", 7, ATTRIBUTES]),
    "unlink": ("do", [12, "{}"]),
    "read": ("say", [100, 0, 0, "{}", [[b"x", 0, None]]]),
    "read all": ("say", [101, 0, 0, "{}"]),
    "status": ("say", [102, 0, 0, "{}"]),
    "sections": ("say", [103, 0, 0, "{}", 5, 0]),
    "ids": ("say", [106, 0, 0, "{}"]),
    "page": ("say", [126, 0, 0, "{}", b"", None, 10]),
    "statuses": ("say", [108, 0, 0, "{}", [b"x"]]),
    "synchronize": ("say", [109, 0, 0, "{}"]),
    "track point": ("say", [113, 0, 0, "{}"]),
    "track": ("say", [110, "{}", None, True, 0]),
    "local read": ("say", [101, 0, 1, "{}"]),
    "group": ("say", [116, 0, 0, "{}"]),
    "swap": ("do", [53, "{}", 4, None]),
    "join": ("do", [50, "{}", "c", 0, 10**9, 0]),
    "leave": ("do", [51, "{}", "c", False]),
}


def work(port: RightsPort, caller: Any, method: str, message: list[Any]) -> tuple[Any, Any]:
    """The reply without its number, and how often each function ran for it."""
    ran: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            ran[f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            ran[getattr(argument, "__qualname__", repr(argument))] += 1

    caller.request += 1
    sequence: list[Any] = []
    if method == "do":
        caller.sequence += 1
        sequence = [caller.sequence, caller.sequence - 1]
    frame = pack_messages([[message[0], caller.request, *sequence, *message[1:]]])
    connection, listener = port.connection(caller.name), port.listener
    port.taken()
    sys.setprofile(note)
    try:
        connection.data_received(frame)
        listener.flush()
        while listener.calls:
            listener.calls.popleft()()
        port.world.log.step()
        listener.flush()
    finally:
        sys.setprofile(None)
    told = [m for _, data in port.taken() for m in port._streams[caller.name].feed(data)]
    reply = [reply for reply in told if reply[0] == 0][-1]
    return [reply[2], *reply[3:]], ran


@pytest.mark.parametrize("what", HIDDEN)
def test_forbidden_and_not_there_are_one_answer_made_in_one_way(what: str) -> None:
    port = RightsPort()
    owner = port.tenant("owner", "t/", ALL_RIGHTS)
    owner.do(10, "t/is", 7, ATTRIBUTES)
    owner.do(24, 1, b"x", b"data")
    owner.do(50, "t/is", "theirs", 0, 10**9, 0)
    tenant = port.tenant("tenant", "u/", ALL_RIGHTS)
    method, message = HIDDEN[what]
    answers = []
    for name in ("t/no", "t/is", "t/no", "t/is"):  # the first ones warm caches
        said = [each.format(name) if each == "{}" else each for each in message]
        answers.append(work(port, tenant, method, said))
    there, absent = answers[3], answers[2]
    assert repr(there[0]).replace("t/is", "t/no") == repr(absent[0])
    assert there[1] == absent[1]
    assert sum(there[1].values()) > 10, "something was counted"


def test_a_difference_in_the_work_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count above can fail."""

    def careless(state: Any, name: str, principal: int, right: int) -> Any:
        if name not in state.names:
            return queries.refuse(12, "checkpoint_missing", name)
        return original(state, name, principal, right)

    original = queries.allowed
    monkeypatch.setattr(queries, "allowed", careless)
    with pytest.raises(AssertionError):
        test_forbidden_and_not_there_are_one_answer_made_in_one_way("status")


# --- certificates --------------------------------------------------------------------------------


def test_a_certificate_proves_a_principal_that_takes_one() -> None:
    port = RightsPort()
    assert port.operator.do(61, "web", None, b"", NEVER, True, None)[2] == 1
    digest = b"d" * 32
    assert port.operator.do(61, "other", "id2", digest, NEVER, False, None)[2] == 1
    access = port.machine.access
    proved = access.prove(None, "web", 0)
    assert proved is not None
    assert access.by_number[proved.principal].name == "web"
    assert access.prove(None, "other", 0) is None
    assert access.prove(None, "nobody", 0) is None
    assert access.prove("rck1.bad.token", "web", 0) is None, "a wrong token is not overlooked"


def test_the_name_in_a_certificate_is_of_this_cluster_and_the_only_one() -> None:
    def certificate(*uris: str) -> dict[str, Any]:
        return {"subjectAltName": tuple(("URI", uri) for uri in uris)}

    assert client_name(certificate("raftckpt://c/client/web"), "c") == "web"
    assert client_name(certificate("raftckpt://d/client/web"), "c") is None
    assert client_name(certificate("raftckpt://c/replica/web"), "c") is None
    two = certificate("raftckpt://c/client/web", "raftckpt://c/client/ops")
    assert client_name(two, "c") is None
    assert client_name(None, "c") is None


# --- the hot path --------------------------------------------------------------------------------


def calls_per_operation(port: GoldenPort, name: str, request: Any) -> float:
    """Calls of functions for each of many operations in one frame, what is fixed left out."""

    def calls(count: int) -> int:
        ran = 0

        def note(frame: Any, event: str, argument: Any) -> None:
            nonlocal ran
            ran += event in ("call", "c_call")

        frame = pack_messages([request() for _ in range(count)])
        connection, listener = port._connection(name), port._listener
        sys.setprofile(note)
        try:
            connection.data_received(frame)
            for _ in range(3):
                listener.flush()
                while listener.calls:
                    listener.calls.popleft()()
                port._world.log.step()
            listener.flush()
        finally:
            sys.setprofile(None)
        port.taken()
        return ran

    calls(16)  # what is done the first time only
    # in a slow moment a slice of reads ends early, and the rest costs another look at the clock
    few, many = (min(calls(count) for _ in range(5)) for count in (16, 116))
    return (many - few) / 100


def test_a_write_and_a_read_ask_nothing_more_with_rights_on() -> None:
    """Exactly as many function calls, whether rights are on or off."""
    plain, secured = GoldenPort(), RightsPort()
    for messages in (
        [200, 1, [1], "t", None],
        [1, 2, 0, 0, b"t" * 16, "t", "n1", 10**10, 0],
        [10, 3, 1, 0, "t/a", 7, ATTRIBUTES],
    ):
        plain.send("t", pack_messages([messages]))
    tenant = secured.tenant("t", "t/", ALL_RIGHTS)
    tenant.do(10, "t/a", 7, ATTRIBUTES)
    found = []
    for port in (plain, secured):
        port.taken()
        sequence = 1

        def put() -> list[Any]:
            nonlocal sequence
            sequence += 1
            return [24, 1000 + sequence, sequence, sequence - 1, 1, b"k", b"v" * 100]

        def read() -> list[Any]:
            return [100, 5000, 0, 0, 1, [[b"k", 0, None]]]

        found.append([calls_per_operation(port, "t", each) for each in (put, read)])
    assert found[0] == found[1]
    assert all(count > 1 for count in found[0]), "something was counted"
