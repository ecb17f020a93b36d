from __future__ import annotations

import pytest

from raftckpt import limits
from raftckpt.protocol import contract
from raftckpt.protocol.batch import decode_batch
from tests.unit.node.fakes import ASYNC, ENDPOINTS, EPOCH_NS, NotingClient


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


def test_a_repeat_is_answered_from_the_reply_table(world, client, handle):
    first = world.put(client, handle, 2, b"k", b"one")
    world.log.step()
    again = world.put(client, handle, 2, b"k", b"other")
    world.log.step()
    assert client.reply(again) == client.reply(first)
    read = world.read(client, handle)
    world.log.step()
    assert client.reply(read)[1] == [b"one"]


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
    assert not world.replica._flight.early.marks
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


def test_a_repeat_is_not_accepted_early_again(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.put(client, handle, 2)
    world.log.run()
    client.early.clear()
    world.put(client, handle, 2)
    assert client.early == []


def test_who_wants_much_is_woken_when_his_rest_is_over(world, client, handle):
    """Somebody who wants little is beside him, and is answered at once."""
    other = NotingClient()
    world.open_session(other, secret=b"o" * 16)
    own = world.open_checkpoint(other)

    def much(first):
        puts = [
            [24, 10_000 + i, 2 + i, 0, handle, b"k", bytes(1000)] for i in range(first, first + 300)
        ]
        world.submit(client, puts)

    much(0)
    world.log.hold = True
    world.log.step()
    much(300)
    world.put(other, own, 2)
    world.log.step()
    world.log.hold = False
    for _ in range(2):  # what left before him and he himself; then one brief entry
        world.log.step()
    world.log.hold = True
    world.log.step()
    ((_, brief),) = world.log.waiting
    assert 40 < len(brief.commands) < 70
    world.clock.pass_by(0.004)
    world.log.hold = False
    world.log.step()
    rests_until = world.clock.now + 0.008
    assert world.replica.deadline() == pytest.approx(rests_until)
    applied = world.replica.applied_commands
    world.log.step()
    assert world.replica.applied_commands == applied, "he rests"
    answered = len(other.replies)
    world.put(other, own, 3)
    world.log.step()
    assert len(other.replies) == answered + 1
    assert world.replica.applied_commands == applied + 1
    world.clock.pass_by(0.0081)
    world.log.step()
    assert world.replica.applied_commands > applied + 40
