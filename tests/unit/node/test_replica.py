from __future__ import annotations

import pytest

from raftckpt import limits
from raftckpt.protocol import contract
from raftckpt.protocol.batch import decode_batch
from raftckpt.raft.port import Transferred
from tests.directories import founding_of
from tests.messages import record
from tests.unit.node.fakes import ENDPOINTS, EPOCH_NS, SECOND, LoneReplica, NotingClient


@pytest.fixture
def world() -> LoneReplica:
    return LoneReplica()


@pytest.fixture
def client(world: LoneReplica) -> NotingClient:
    return world.open_session()


@pytest.fixture
def handle(world: LoneReplica, client: NotingClient) -> int:
    return world.open_checkpoint(client)


# --- commands -----------------------------------------------------------------------
def test_put_is_answered_at_apply_not_before(world, client, handle):
    world.log.hold = True
    number = world.put(client, handle, 2)
    world.log.step()
    assert number not in [reply[0] for reply in client.replies]
    world.log.hold = False
    world.log.step()
    assert client.reply(number) > 0
    assert client.inflight_bytes == 0


def test_commands_of_one_iteration_become_one_entry(world, client, handle):
    before = len(world.log.payloads)
    numbers = [world.put(client, handle, 2 + i, b"k%d" % i) for i in range(10)]
    world.log.step()
    assert len(world.log.payloads) == before + 1
    assert [client.reply(number) for number in numbers] == sorted(
        client.reply(number) for number in numbers
    )


def test_a_gap_is_refused_and_never_proposed(world, client, handle):
    entries = len(world.log.payloads)
    number = world.put(client, handle, 4)
    world.log.run()
    assert client.refusals[number] == ("gap", True, None)
    assert len(world.log.payloads) == entries
    first, second = world.put(client, handle, 2), world.put(client, handle, 3)
    world.log.run()
    assert client.reply(first) < client.reply(second)


def test_a_repeat_is_answered_from_the_reply_table(world, client, handle):
    first = world.put(client, handle, 2, b"k", b"one")
    world.log.step()
    again = world.put(client, handle, 2, b"k", b"other")
    world.log.step()
    assert client.reply(again) == client.reply(first)
    read = world.read(client, handle)
    world.log.step()
    assert client.reply(read)[1] == [b"one"]


def test_a_follower_sends_commands_to_the_leader():
    world = LoneReplica(lead=False)
    world.log.lead("n2")
    client = NotingClient()
    world.submit(client, [[24, 7, 1, 0, 1, b"k", b"v"]])
    assert client.refusals[7] == ("not_leader", True, ENDPOINTS["n2"])
    world.submit(client, [[1, 8, 0, 0, b"s" * 16, "a", "b", 10**9, 0]])
    assert client.reason(8) == "not_leader"


def test_a_command_without_a_session_is_told_so(world):
    stranger = NotingClient()
    world.submit(stranger, [[24, 7, 1, 0, 1, b"k", b"v"]])
    assert stranger.refusals[7] == ("not_leader", True, ENDPOINTS["n1"])


def test_second_session_on_one_connection_is_refused(world, client):
    world.submit(client, [[1, 99, 0, 0, b"t" * 16, "a", "b", 10**9, 0]])
    assert client.reason(99) == "schema"


def test_entries_stay_below_the_cap_and_nothing_is_lost(world, client, handle):
    data = b"x" * (300 * limits.KIB)
    messages = [[26, 1000 + i, 2 + i, 0, 1, i * 256, data[: 250 * limits.KIB]] for i in range(9)]
    world.submit(client, messages)
    before = len(world.log.payloads)
    world.log.run()
    entries = world.log.payloads[before:]
    assert len(entries) > 2
    assert all(len(entry) <= limits.ENTRY_PAYLOAD_BYTES_MAX for entry in entries)
    assert sum(len(decode_batch(entry).commands) for entry in entries) == 9
    assert {1000 + i for i in range(9)} <= {number for number, _, _ in client.replies}


def test_batches_are_limited_by_the_number_of_commands(world, client, handle):
    count = contract.BATCH_COMMANDS_MAX + 10
    world.submit(client, [[24, 10_000 + i, 2 + i, 1 + i, handle, b"k", b""] for i in range(count)])
    before = len(world.log.payloads)
    world.log.run()
    sizes = [len(decode_batch(entry).commands) for entry in world.log.payloads[before:]]
    assert sizes == [contract.BATCH_COMMANDS_MAX, 10]


def test_too_many_batches_on_their_way_make_commands_gather(world, client, handle):
    world.log.hold = True
    for i in range(20):
        world.put(client, handle, 2 + i)
        world.log.step()
    assert len(world.log.waiting) == 8
    world.log.hold = False
    world.log.run()
    assert len([1 for _, code, _ in client.replies if code == 1]) == 2 + 20


def test_overload_is_refused_definitely_and_leaves_no_trace(world, client, handle, monkeypatch):
    monkeypatch.setattr(limits, "PENDING_COMMANDS_MAX", 3)
    world.log.hold = True
    numbers = [world.put(client, handle, 2 + i) for i in range(5)]
    assert [client.refusals.get(n, ("",))[0] for n in numbers] == ["", "", "", "busy", "gap"]
    world.log.hold = False
    world.log.run()
    again = world.put(client, handle, 5)
    world.log.run()
    assert client.reply(again)


def test_overload_by_bytes(world, client, handle):
    world.replica.disk_room(False, 1000)
    world.log.hold = True
    assert world.put(client, handle, 2, data=b"x" * 500) not in client.refusals
    number = world.put(client, handle, 3, data=b"x" * 500)
    assert client.reason(number) == "busy"


def test_a_log_that_takes_nothing_refuses_and_sequences_go_back(world, client, handle):
    world.log.accepts = False
    number = world.put(client, handle, 2)
    world.log.step()
    assert client.refusals[number][:2] == ("not_leader", True)
    assert client.inflight_bytes == 0
    world.log.accepts = True
    early = world.put(client, handle, 3)
    assert client.reason(early) == "gap"
    again = world.put(client, handle, 2)
    world.log.step()
    assert client.reply(again)


def test_leadership_lost_is_indefinite_for_what_was_proposed_only(world, client, handle):
    world.log.hold = True
    proposed = world.put(client, handle, 2)
    world.log.step()
    queued = world.put(client, handle, 3)
    read = world.read(client, handle)
    world.log.lose()
    assert client.refusals[proposed][:2] == ("leadership_lost", False)
    assert client.refusals[queued] == ("not_leader", True, ENDPOINTS["n2"])
    assert client.reason(read) == "not_leader"
    assert client.session is None
    assert client.inflight_bytes == 0


def test_an_entry_that_commits_after_leadership_was_lost_is_answered(world, client, handle):
    world.log.hold = True
    number = world.put(client, handle, 2)
    world.log.step()
    world.log.lose(abandon=False)
    world.log.hold = False
    world.log.step()
    assert client.reply(number)


# --- attach -------------------------------------------------------------------------
def attach(
    world: LoneReplica, client: NotingClient, session: int, secret: bytes = b"s" * 16
) -> int:
    number = world.next()
    world.replica.attach(client, record([201, number, session, secret]))
    return number


def test_attach_waits_for_a_confirmed_leader_and_takes_the_session_over(world, client, handle):
    session = client.session.id
    other = NotingClient()
    world.log.hold_reads = True
    number = attach(world, other, session)
    world.log.step()
    assert not other.replies
    world.log.hold_reads = False
    world.log.step()
    assert other.reply(number) == [1, 10 * SECOND]
    assert other.attaches_over == 1
    assert client.was_detached
    assert client.session is None
    put = world.put(other, handle, 2)
    world.log.step()
    assert other.reply(put)


@pytest.mark.parametrize(
    ("session", "secret", "reason"), [(77, b"s" * 16, "session"), (1, b"x" * 16, "secret")]
)
def test_attach_refused(world, client, session, secret, reason):
    other = NotingClient()
    number = attach(world, other, session, secret)
    world.log.step()
    assert other.reason(number) == reason
    assert other.session is None
    assert other.attaches_over == 1


def test_attach_after_leadership_came_back_knows_the_last_sequence(world, client, handle):
    session = client.session.id
    world.put(client, handle, 2)
    world.log.run()
    world.log.lose()
    world.log.lead()
    number = world.put(client, handle, 3)
    assert client.refusals[number] == ("not_leader", True, ENDPOINTS["n1"])
    again = attach(world, client, session)
    world.log.step()
    assert client.reply(again)[0] == 2
    put = world.put(client, handle, 3)
    world.log.step()
    assert client.reply(put)


def test_unconfirmed_attach_is_not_leader(world, client):
    number = attach(world, NotingClient(), 1)
    other = NotingClient()
    number = attach(world, other, 1)
    world.replica.flush()
    world.log.lose()
    assert other.reason(number) == "not_leader"
    assert other.attaches_over == 1


# --- early acceptance ---------------------------------------------------------------
ASYNC = 2


def test_asynchronous_write_is_accepted_early_and_answered_after(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    first = world.put(client, handle, 2)
    world.log.run()
    world.log.hold = True
    number = world.put(client, handle, 3)
    assert number in client.early
    assert number not in [reply[0] for reply in client.replies]
    world.log.hold = False
    world.log.run()
    assert client.reply(number) > client.reply(first)


def test_synchronous_write_is_never_accepted_early(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.put(client, handle, 3)
    assert client.early == []


def test_a_write_the_machine_refuses_is_not_accepted_early(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    number = world.next()
    world.submit(client, [[23, number, 2, 0, handle, b"missing", b"v"]])
    assert client.early == []
    world.log.run()
    assert client.reason(number) == "section_missing"


@pytest.mark.parametrize(
    "structural",
    [
        lambda handle: [21, 0, 3, 0, handle, b"k"],
        lambda handle: [11, 0, 3, 0, handle],
        lambda handle: [12, 0, 3, 0, "ckpt"],
        lambda handle: [14, 0, 3, 0, handle, True],
        lambda handle: [20, 0, 3, 0, handle, b"new", b"", 0x7FFF_FFFF_FFFF_FFFF, None],
        lambda handle: [22, 0, 3, 0, handle, b"k", EPOCH_NS + 10**12, None],
    ],
)
def test_no_early_acceptance_behind_a_pending_structural_command(world, client, structural):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold = True
    command = structural(handle)
    command[1] = world.next()
    world.submit(client, [command])
    number = world.put(client, handle, 4)
    assert number not in client.early
    world.log.hold = False
    world.log.run()
    assert [reply for reply in client.replies if reply[0] == number]


def test_creating_puts_are_accepted_early_as_long_as_all_fit(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC, sections=3)
    world.log.hold = True
    numbers = [world.put(client, handle, 2 + i, b"new%d" % i) for i in range(4)]
    assert client.early == numbers[:3]
    world.log.hold = False
    world.log.run()
    assert client.reason(numbers[3]) == "sections_full"
    accepted = world.put(client, handle, 6, b"new0")
    assert accepted in client.early


def test_a_put_behind_a_delete_counts_as_creating(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC, sections=2)
    for i in range(2):
        world.put(client, handle, 2 + i, b"s%d" % i)
    world.log.run()
    world.log.hold = True
    world.submit(client, [[21, 500, 4, 0, handle, b"s0"]])
    world.log.step()
    again = world.put(client, handle, 5, b"s0")  # looks like an overwrite, will create
    world.log.step()
    delete, world.log.waiting = world.log.waiting[:1], world.log.waiting[1:]
    world.log.index += 1
    world.replica.apply(world.log.index, 1, *delete[0])
    other = world.put(client, handle, 6, b"s2")  # one section, one on its way: no room
    assert again not in client.early
    assert other not in client.early
    world.log.hold = False
    world.log.run()
    assert client.reason(other) == "sections_full"


def test_a_put_by_a_handle_that_is_not_open_yet_may_create_anywhere(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC, sections=3)
    for i in range(2):
        world.put(client, handle, 2 + i, b"s%d" % i)
    world.log.run()
    other = world.open_session(secret=b"t" * 16)
    world.log.hold = True
    # pipelined: the open will give handle 1, the put takes the last section
    world.submit(other, [[10, 901, 1, 0, "ckpt", 3, None], [24, 902, 2, 0, 1, b"s2", b"v"]])
    number = world.put(client, handle, 4, b"s3")
    assert number not in client.early
    world.log.hold = False
    world.log.run()
    assert client.reason(number) == "sections_full"
    assert other.reply(902)
    again = world.put(client, handle, 5, b"s0")  # the mark is gone with the put
    assert again in client.early
    mine = world.next()
    world.submit(other, [[24, mine, 3, 0, 1, b"s0", b"v"]])
    assert mine in other.early  # the handle counts as asynchronous once it is open


def test_handles_that_are_not_open_are_not_remembered(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    for i in range(100):
        world.put(client, 1000 + i, 2 + i)
    world.log.run()
    world.submit(client, [[11, 500, 102, 0, handle]])
    world.log.run()
    number = world.put(client, handle, 103)  # closed for good: it creates nothing
    assert not world.replica._early.marks
    assert client.session.asynchronous == {}
    world.log.run()
    assert client.reason(number) == "handle"


def test_a_repeated_put_still_counts_as_creating(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC, sections=2)
    world.put(client, handle, 2, b"one")
    world.log.run()
    client.early.clear()
    client.session.proposed = 3  # its first attempt was refused without a trace
    world.log.hold = True
    repeat = world.put(client, handle, 3, b"two")
    number = world.put(client, handle, 4, b"three")
    assert client.early == []
    world.log.hold = False
    world.log.run()
    assert client.reply(repeat)
    assert client.reason(number) == "sections_full"


def test_a_submit_that_fails_half_way_leaves_whole_commands(world, client, monkeypatch):
    handle = world.open_checkpoint(client, flags=ASYNC)
    consider, calls = world.replica._early.consider, []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise LookupError("planted")
        consider(*arguments)

    monkeypatch.setattr(world.replica._early, "consider", fail_once)
    messages = [[24, 900 + i, 2 + i, 0, handle, b"k%d" % i, b"v"] for i in range(3)]
    with pytest.raises(LookupError):
        world.submit(client, messages)
    assert [type(error) for error in world.failures] == [LookupError]
    again = world.put(client, handle, 3)
    world.log.run()
    assert client.reply(900)
    assert client.reply(again) > client.reply(900)
    assert client.inflight_bytes == 0


@pytest.mark.parametrize("call", ["query", "attach"])
def test_what_reads_raise_is_told_too(world, client, call, monkeypatch):
    def broken():
        raise LookupError("planted")

    monkeypatch.setattr(world.replica, "_wake", broken)
    message = [201, 900, 1, b"s" * 16] if call == "attach" else [104, 900, 0, 0]
    with pytest.raises(LookupError):
        getattr(world.replica, call)(client, record(message))
    assert [type(error) for error in world.failures] == [LookupError]


def test_a_repeat_is_not_accepted_early_again(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.put(client, handle, 2)
    world.log.run()
    client.early.clear()
    world.put(client, handle, 2)
    assert client.early == []


# --- reads --------------------------------------------------------------------------
def test_a_linearizable_read_waits_for_its_round(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    number = world.read(client, handle)
    world.log.step()
    assert number not in [reply[0] for reply in client.replies]
    world.log.hold_reads = False
    world.log.step()
    assert client.reply(number)[1] == [b"v"]


def test_one_round_serves_all_waiting_reads(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    for _ in range(10):
        world.read(client, handle)
    world.replica.flush()
    assert len(world.log.reads) == 1


def test_reads_there_is_no_time_for_are_answered_in_turns(world, client, handle, monkeypatch):
    """Somebody asks for a thousand expensive reads; another one's read does not wait for them."""
    world.put(client, handle, 2)
    world.log.run()
    answer, answered = world.replica._answer, []

    def expensive(owner, query):
        world.clock.pass_by(0.001)
        answered.append(owner)
        answer(owner, query)

    monkeypatch.setattr(world.replica, "_answer", expensive)
    hog, other = world.open_session(secret=b"h" * 16), world.open_session(secret=b"o" * 16)
    asked = [world.read(hog, "ckpt") for _ in range(1000)]
    world.log.step()
    assert len(answered) == 8, "a few, then others may go first"
    number = world.read(other, "ckpt")
    woken = world.wakes
    world.log.step()
    world.log.step()
    assert other.reply(number)[1] == [b"v"]
    assert len(answered) < 40
    assert world.wakes > woken, "it goes on without being asked"
    while world.replica._late:
        world.log.step()
    assert [reply[0] for reply in hog.replies[1:]] == asked, "in order, each once"


def test_reads_that_wait_for_a_write_cost_nothing_until_it_is_applied(world, client, monkeypatch):
    """Of thousands behind one write, each entry of others looks at one."""
    handle = world.open_checkpoint(client, flags=2)  # accepted early
    other = world.open_session(secret=b"o" * 16)
    theirs = world.open_checkpoint(other, flags=2)
    world.log.hold = True
    world.put(client, handle, 2)
    numbers = [world.read(client, handle, after=2) for _ in range(500)]
    world.log.step()
    assert len(world.replica._blocked[client]) == 500
    looks = []
    caught_up = world.replica._caught_up
    monkeypatch.setattr(
        world.replica, "_caught_up", lambda *args: looks.append(1) or caught_up(*args)
    )
    held, world.log.waiting = world.log.waiting, []
    world.put(other, theirs, 2)
    world.log.hold = False
    world.log.step()
    assert len(looks) == 1
    assert not client.replies[2:]
    world.log.waiting = held
    world.log.run()
    assert not world.replica._blocked
    assert [reply[0] for reply in client.replies if reply[0] in numbers] == numbers


def test_confirmed_reads_are_refused_with_leadership(world, client, handle, monkeypatch):
    world.put(client, handle, 2)
    world.log.run()
    monkeypatch.setattr(
        world.replica, "_answer", lambda owner, query: world.clock.pass_by(0.01), raising=True
    )
    numbers = [world.read(client, "ckpt") for _ in range(20)]
    world.log.step()
    world.log.lose()
    assert [client.reason(number) for number in numbers[8:]] == ["not_leader"] * 12


def test_an_address_has_only_so_many_sessions(world, monkeypatch):
    monkeypatch.setattr(limits, "SESSIONS_PER_ADDRESS_MAX", 3)

    def someone(number, address):
        client = NotingClient()
        client.address = address
        return client, lambda: world.open_session(client, secret=bytes([number]) * 16)

    there = []
    for number in range(3):
        client, opened = someone(number, "10.0.0.1")
        opened()
        there.append(client)
    refused, opened = someone(3, "10.0.0.1")
    with pytest.raises(AssertionError):
        opened()
    assert list(refused.refusals.values()) == [("limit", True, "sessions of an address")]
    someone(4, "10.0.0.2")[1]()
    number = world.next()
    world.submit(there[0], [[2, number, 1, 0]])  # it ends
    world.log.step()
    someone(5, "10.0.0.1")[1]()


def test_a_read_that_came_during_a_round_waits_for_a_later_one(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    numbers = []
    for _ in range(4):
        numbers.append(world.read(client, handle))
        world.log.step()
    assert len(world.log.reads) == 2  # two rounds under way, the rest waits
    first = world.log.reads.pop(0)
    first(True)
    answered = [reply[0] for reply in client.replies]
    assert [number in answered for number in numbers] == [True, False, False, False]


def test_reads_of_ones_own_accepted_writes_wait_for_them(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.put(client, handle, 2, b"k", b"old")
    world.log.run()
    world.log.hold = True
    world.put(client, handle, 3, b"k", b"new")
    for local in (0, 1):
        number = world.read(client, handle, after=3, local=local)
        world.log.step()
        assert number not in [reply[0] for reply in client.replies]
    world.log.hold = False
    world.log.step()
    assert client.reply(number)[1] == [b"new"]
    assert client.reply(number - 1)[1] == [b"new"]


def test_a_read_after_a_sequence_nobody_sent_is_a_gap(world, client, handle):
    number = world.read(client, handle, after=9)
    assert client.reason(number) == "gap"


def test_a_local_read_needs_no_leader_and_no_session(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.lose()
    stranger = NotingClient()
    number = world.read(stranger, "ckpt", local=1)
    assert stranger.reply(number)[1] == [b"v"]
    number = world.read(stranger, "ckpt")
    assert stranger.reason(number) == "not_leader"


# --- sessions -----------------------------------------------------------------------
def alive(world: LoneReplica) -> int:
    return len(world.replica.machine.sessions)


def test_a_silent_session_is_expired(world, client):
    world.clock.pass_by(9.9)
    world.log.run()
    assert alive(world) == 1
    assert world.replica.deadline() == pytest.approx(world.clock.now + 0.1, abs=0.01)
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0
    assert client.notices == [("session_lost", "expired")]
    assert client.session is None


@pytest.mark.parametrize("seconds", [2.0, 12.0, 3600.0])
def test_a_standstill_of_the_replica_ends_no_session(world, client, seconds):
    world.clock.pass_by(5.0)
    world.clock.stand_still(seconds)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(4.9)  # it has the time that it had before, and no more
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.3)
    world.log.run()
    assert alive(world) == 0


def test_a_close_before_a_standstill_leaves_the_rest_of_the_grace(world, client):
    world.replica.closed(client, by_client=True)
    world.log.run()
    world.clock.stand_still(60.0)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(2.1)
    world.log.run()
    assert alive(world) == 0


def test_a_close_after_a_standstill_is_not_put_off_by_it(world, client):
    world.clock.stand_still(60.0)
    world.replica.closed(client, by_client=True)
    world.log.run()
    world.clock.pass_by(2.1)
    world.log.run()
    assert alive(world) == 0


def test_signs_of_life_keep_a_session(world, client):
    for _ in range(5):
        world.clock.pass_by(8.0)
        client.session.seen = world.clock.now
        world.log.run()
    assert alive(world) == 1


def test_a_close_by_the_client_leaves_only_the_grace(world, client):
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0


def test_a_close_by_our_side_starts_no_clock(world, client):
    world.replica.closed(client, by_client=False)
    world.clock.pass_by(5.0)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(5.1)
    world.log.run()
    assert alive(world) == 0


def test_coming_back_within_the_grace_saves_the_session(world, client, handle):
    session = client.session.id
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.0)
    other = NotingClient()
    attach(world, other, session)
    world.log.run()
    world.clock.pass_by(8.0)
    world.log.run()
    assert alive(world) == 1


def test_a_connection_that_closed_before_its_attach_binds_nothing(world, client, handle):
    other = NotingClient()
    attach(world, other, client.session.id)
    other.gone = True
    world.log.run()
    assert client.session is not None
    assert not client.was_detached
    stranger = NotingClient()
    world.submit(stranger, [[1, 900, 0, 0, b"t" * 16, "a", "b", 10**11, 10**9]])
    stranger.gone = True
    world.log.run()
    assert alive(world) == 2
    world.clock.pass_by(1.1)
    world.log.run()
    assert alive(world) == 1


def test_zero_grace_expires_at_once(world):
    client = world.open_session(grace_s=0)
    world.replica.closed(client, by_client=True)
    world.log.run()
    assert alive(world) == 0


def test_a_new_leader_gives_everybody_a_full_timeout(world, client):
    world.replica.closed(client, by_client=True)
    world.log.lose()
    world.clock.pass_by(60.0)
    world.log.lead()
    world.log.run()
    world.clock.pass_by(9.9)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0


def test_only_one_expiry_is_on_its_way(world, client):
    world.clock.pass_by(11)
    world.log.hold = True
    for _ in range(5):
        world.log.step()
        world.clock.pass_by(1)
    assert len(world.log.waiting) == 1


def test_goodbye_ends_the_session(world, client):
    number = world.next()
    world.submit(client, [[2, number, 1, 0]])
    world.log.run()
    assert client.reply(number) is None
    assert alive(world) == 0
    assert client.session is None


def test_keepalive(world, client):
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert client.reply(70) == [world.replica.machine.revision]
    other = NotingClient()
    world.replica.keepalive(other, record([202, 71]))
    world.log.step()
    assert other.reason(71) == "not_leader"
    world.log.lose()
    world.replica.keepalive(client, record([202, 72]))
    assert client.reason(72) == "not_leader"


def test_a_leader_that_was_deposed_unknowingly_proves_nobody_alive(world, client):
    world.log.hold_reads = True
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert not client.replies[1:]
    world.log.lose()
    assert client.reason(70) == "not_leader"


def test_nobody_is_proven_alive_while_its_end_is_on_its_way(world, client):
    """It would believe that nobody else can be active, and the entry may be applied any time."""
    session = client.session.id
    world.log.hold = True
    world.clock.pass_by(10.1)
    world.log.step()
    world.log.step()
    other = NotingClient()
    number = attach(world, other, session)
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert client.reason(70) == other.reason(number) == "ending"
    assert other.session is None
    contexts = [context for _, context in world.log.waiting]
    world.log.waiting.clear()
    world.replica.abandon(contexts)  # it was cut off
    number = attach(world, other, session)
    world.log.step()
    assert other.reply(number)[1] == 10 * SECOND


def test_who_is_back_in_time_lives_while_the_leader_makes_sure_that_it_leads(world, client):
    session = client.session.id
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    world.log.hold_reads = True
    other = NotingClient()
    number = attach(world, other, session)
    world.clock.pass_by(1.9)
    world.log.run()
    assert alive(world) == 1
    world.log.hold_reads = False
    world.log.run()
    assert other.reply(number)[1] == 10 * SECOND


def test_a_stranger_who_knows_no_secret_keeps_no_session_alive(world, client):
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    attach(world, NotingClient(), 1, b"x" * 16)
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0


# --- due work, time, check ----------------------------------------------------------
def test_expirations_are_proposed_when_due(world, client, handle):
    number = world.next()
    world.submit(
        client, [[20, number, 2, 0, handle, b"e", b"x", 0x7FFF_FFFF_FFFF_FFFF, 5 * SECOND]]
    )
    world.log.run()
    client.reply(number)
    assert world.replica.deadline() == pytest.approx(world.clock.now + 5, abs=0.01)
    entries = len(world.log.payloads)
    world.clock.pass_by(4.9)
    client.session.seen = world.clock.now
    world.log.run()
    assert len(world.log.payloads) == entries
    world.clock.pass_by(0.2)
    world.log.run()
    assert len(world.log.payloads) == entries + 1
    number = world.next()
    world.replica.query(client, record([106, number, 0, 1, handle]))
    assert client.reply(number)[1] == []


def test_stamps_never_go_back_and_one_bad_clock_moves_nothing():
    world = LoneReplica(voters=3)
    client = world.open_session()
    handle = world.open_checkpoint(client)
    stamps = []
    sequence = 1
    for walls in (
        [EPOCH_NS, EPOCH_NS, EPOCH_NS],
        [EPOCH_NS + 10**15, EPOCH_NS, EPOCH_NS],
        [EPOCH_NS - 10**15] * 3,
    ):
        world.log.walls = walls
        world.clock.now += 1.0
        sequence += 1
        world.put(client, handle, sequence)
        world.log.run()
        stamps.append(decode_batch(world.log.payloads[-1]).now_ns)
    assert stamps == sorted(stamps)
    assert stamps[1] - stamps[0] == pytest.approx(SECOND, abs=1000)
    assert stamps[2] - stamps[1] == pytest.approx(SECOND, abs=1000)


def test_duties_pause_while_the_log_refuses(world, client, handle):
    create = [20, world.next(), 2, 0, handle, b"ttl", b"", 0x7FFF_FFFF_FFFF_FFFF, SECOND]
    world.submit(client, [create])
    world.log.run()
    world.clock.pass_by(5.0)
    world.log.accepts = False  # it hands leadership over
    wakes = world.wakes
    world.log.run()
    assert world.log.refused == 1
    assert world.wakes == wakes + 1
    assert world.replica.deadline() > world.clock.now
    for _ in range(10):
        world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
        world.log.run()
    assert world.log.refused == 11
    world.log.accepts = True
    world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
    world.log.run()
    number = world.read(client, handle, b"ttl")
    world.log.run()
    assert client.reason(number) == "section_missing"


def test_deaths_of_silent_sessions_pause_too_and_are_not_forgotten(world, client):
    world.clock.pass_by(10.5)
    world.log.accepts = False
    world.log.run()
    assert world.log.refused == 1
    assert client.session is not None
    world.log.accepts = True
    for _ in range(10):
        world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
        world.log.run()
        if client.session is None:
            break
    assert client.notices == [("session_lost", "expired")]


def test_check_freezes_the_state_of_its_entry(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.replica.start_check(client, 500, b"nonce")
    world.log.run()
    nonce, index = client.reply(500)
    assert world.replica.digest(nonce) is None
    world.put(client, handle, 3, b"k", b"later")
    world.log.run()
    world.replica.digests.work(1.0)
    digest = world.replica.digest(nonce)
    assert digest is not None
    assert digest.at == index
    again = LoneReplica()
    other = again.open_session()
    again.put(other, again.open_checkpoint(other), 2)
    again.log.run()
    again.replica.start_check(other, 500, b"nonce")
    again.log.run()
    again.replica.digests.work(1.0)
    assert again.replica.digest(b"nonce").hex == digest.hex
    again.put(other, 1, 3, b"k", b"changed")
    again.replica.start_check(other, 501, b"another")
    again.log.run()
    again.replica.digests.work(1.0)
    assert again.replica.digest(b"another").hex != digest.hex


def test_transfer_goes_to_the_log(world):
    seen = []
    world.replica.transfer("n2", seen.append)
    node, done = world.log.transfers[0]
    done(Transferred.DONE)
    assert (node, seen) == ("n2", [Transferred.DONE])


def test_restore_replaces_the_state(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    image = list(world.replica.freeze())
    other = LoneReplica(lead=False)
    other.replica.restore(image)
    stranger = NotingClient()
    number = other.read(stranger, "ckpt", local=1)
    assert stranger.reply(number)[1] == [b"v"]


def test_leadership_lost_and_won_between_two_announcements(world, client, handle):
    world.log.hold = True
    queued = world.put(client, handle, 2)
    world.replica.role_changed(world.log.status()._replace(term=2))
    assert client.reason(queued) == "not_leader"
    assert client.session is None
    world.log.hold = False
    again = NotingClient()
    number = attach(world, again, 1)
    world.log.run()
    assert again.reply(number)[0] == 1
    put = world.put(again, handle, 2)
    world.log.run()
    assert again.reply(put)


def test_ids_that_blow_up_an_entry_are_too_big(world, client, handle):
    vector = [[b"i" * 1024, 0, b""]] * 2000
    world.submit(client, [[25, 900, 2, 0, handle, vector]])
    assert client.reason(900) == "entry_too_big"  # no reason of the model: they use it up
    number = world.put(client, handle, 2)  # its sequence was not used up
    world.log.run()
    assert client.reply(number)


def test_commands_without_a_session_count_against_the_bound(world, monkeypatch):
    monkeypatch.setattr(limits, "PENDING_COMMANDS_MAX", 0)
    stranger = NotingClient()
    world.submit(stranger, [[1, 900, 0, 0, b"t" * 16, "a", "b", 10**11, 10**9]])
    assert stranger.reason(900) == "busy"


def test_check_on_a_follower():
    world = LoneReplica(lead=False)
    stranger = NotingClient()
    world.replica.start_check(stranger, 5, b"n")
    assert stranger.reason(5) == "not_leader"


def test_blocked_reads_of_a_lost_session_are_told(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.log.hold = True
    world.put(client, handle, 2)
    number = world.read(client, handle, after=2)
    world.log.step()
    world.replica.closed(client, by_client=True)
    world.log.hold = False
    world.log.run()
    assert client.reason(number) == "not_leader"


# --- configurations -------------------------------------------------------------------------------


def test_redirects_follow_the_configuration(world):
    configuration = founding_of("test", ["n1", "n4", "n5"])
    one, four, five = configuration.members
    world.replica.configured(configuration.with_members([one, four, five._replace(client="")]))
    assert world.replica.endpoints == {"n1": "n1:2", "n4": "n4:2"}
    world.log.lead("n4")
    assert world.replica.leader_endpoint == "n4:2"
    world.log.lead("n5")
    assert world.replica.leader_endpoint is None
    world.log.told["n5"] = "told:2"
    assert world.replica.leader_endpoint == "told:2", "what it says of itself"


def test_what_is_above_the_level_is_refused_before_the_log(world, client, handle):
    configuration = founding_of("test", ["n1"], level=1)
    world.replica.configured(configuration)
    proposed = len(world.log.payloads)
    put = [2, b"k", 0, b"v", None, 0x7FFF_FFFF_FFFF_FFFF, None]
    number = world.next()
    world.submit(client, [[29, number, 2, 0, handle, [put]]])
    world.log.step()
    assert len(world.log.payloads) == proposed
    reason, definite, detail = client.refusals[number]
    assert (reason, definite, detail) == ("level", True, 2)
    world.replica.configured(configuration._replace(level=2))
    number = world.next()
    world.submit(client, [[29, number, 2, 0, handle, [put]]])
    world.log.step()
    assert len(world.log.payloads) == proposed + 1, "and its sequence was not used up"
    assert client.refusals.get(number, ("",))[0] != "level"
