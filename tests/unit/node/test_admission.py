from __future__ import annotations

import pytest

from raftckpt import limits
from tests.directories import founding_of
from tests.unit.node.fakes import ASYNC, ENDPOINTS, LoneReplica, NotingClient


def test_a_gap_is_refused_and_never_proposed(world, client, handle):
    entries = len(world.log.payloads)
    number = world.put(client, handle, 4)
    world.log.run()
    assert client.refusals[number] == ("gap", True, None)
    assert len(world.log.payloads) == entries
    first, second = world.put(client, handle, 2), world.put(client, handle, 3)
    world.log.run()
    assert client.reply(first) < client.reply(second)


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
    world.disk.allowance = 1000
    world.log.hold = True
    assert world.put(client, handle, 2, data=b"x" * 500) not in client.refusals
    number = world.put(client, handle, 3, data=b"x" * 500)
    assert client.reason(number) == "busy"


def test_a_submit_that_fails_half_way_leaves_whole_commands(world, client, monkeypatch):
    handle = world.open_checkpoint(client, flags=ASYNC)
    consider, calls = world.replica._flight.early.consider, []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise LookupError("planted")
        consider(*arguments)

    monkeypatch.setattr(world.replica._flight.early, "consider", fail_once)
    messages = [[24, 900 + i, 2 + i, 0, handle, b"k%d" % i, b"v"] for i in range(3)]
    with pytest.raises(LookupError):
        world.submit(client, messages)
    assert [type(error) for error in world.failures] == [LookupError]
    again = world.put(client, handle, 3)
    world.log.run()
    assert client.reply(900)
    assert client.reply(again) > client.reply(900)
    assert client.inflight_bytes == 0


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
