from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.client import operations
from raftckpt.client.calls import Call, Needs
from raftckpt.client.core import Link
from raftckpt.client.operations import Opened
from raftckpt.client.probe import digest, replica_status
from raftckpt.client.session import BYTES_MAX
from raftckpt.errors import (
    Access,
    BadHandle,
    InvalidParam,
    NoResources,
    NoSpace,
    SectionNotExist,
    SessionLost,
    Timeout,
    TryAgain,
    Unavailable,
    VersionMismatch,
)
from raftckpt.protocol import contract
from raftckpt.protocol.frames import pack_messages

from .scripted import ENDPOINTS, OPENED, WEAK, Script, a_transaction, appending


def error_of(call: Call) -> Any:
    assert call.done
    assert call.error is not None
    return call.error


# --- finding the leader --------------------------------------------------------------------


def test_the_first_call_connects_greets_and_opens_a_session() -> None:
    script = Script(node=None, disconnect_grace_ns=0)
    assert script.core.target() is None
    call = script.put()
    assert script.endpoint == "h:1"
    script.connected()
    (hello,) = script.sent()
    assert hello == [200, hello[1], [1], "me", None]
    script.reply(
        hello, {"version": 1, "node": "n1", "leader": "n1", "endpoints": {}, "cluster": "c"}
    )
    (opening,) = script.sent()
    assert opening == [1, opening[1], 0, 0, b"s" * 16, "me", "n1", 10**10, 0]
    script.reply(opening, [7])
    (put,) = script.sent()
    assert put == [24, put[1], 1, 0, 5, b"id", b"d"]
    script.reply(put, 3)
    assert call.value == 3
    assert script.core.take_completed() == [call]
    assert script.core.take_completed() == []
    assert script.core.link is Link.READY


def test_a_follower_sends_us_to_the_leader() -> None:
    script = Script("h:1")
    call = script.put()
    script.greet("n1", "n3")
    assert script.endpoint == "h:3"
    script.greet("n3", "n3")
    assert script.core.node == "n1"  # the node first connected to
    (opening,) = script.sent()
    assert opening[6] == "n1"
    assert not call.done


def test_replicas_that_point_at_each_other_do_not_make_us_spin() -> None:
    script = Script("h:1 h:2")
    script.put(timeout=20.0)
    tries = 0
    while script.now < 25.0:
        if script.core.target() is None:
            script.advance(0.01)
            continue
        tries += 1
        node = "n" + script.endpoint[2]
        script.greet(node, "n2" if node == "n1" else "n1")
    assert 10 < tries < 150


def test_without_a_leader_we_wait_and_go_round() -> None:
    script = Script()
    script.put()
    visited = []
    for _ in range(4):
        visited.append(script.endpoint)
        script.greet("n" + script.endpoint[2], None)
        number = script.number
        while script.core.target() is None or script.number == number:
            script.advance(0.01)
    assert visited == ["h:1", "h:2", "h:3", "h:1"]


def test_a_notice_tells_that_this_replica_leads_now() -> None:
    script = Script()
    script.put()
    script.greet("n1", None)
    script.receive([2, "leader", {"leader": None, "endpoint": None}])
    assert script.sent() == []
    script.receive([2, "leader", {"leader": "n1", "endpoint": "h:1"}])
    assert script.sent()[0][0] == 1


def test_a_notice_tells_that_another_leads_now() -> None:
    script = Script()
    script.put()
    script.greet("n1", None)
    script.receive([2, "leader", {"leader": "n2", "endpoint": "h:2"}])
    assert script.endpoint == "h:2"


def test_a_notice_moves_us_when_nothing_is_under_way() -> None:
    script = Script()
    script.ready()
    script.receive([2, "leader", {"leader": "n1", "endpoint": "h:1"}])
    assert script.endpoint == "h:1"
    script.receive([2, "going_away", None], [2, "something new", 5])
    assert script.endpoint == "h:1"
    number = script.number
    script.receive([2, "leader", {"leader": "n2", "endpoint": "h:2"}])
    assert script.endpoint == "h:2"
    assert number in script.core.wanted()


def test_without_need_of_a_leader_a_follower_will_do() -> None:
    script = Script()
    call = script.start(replica_status())
    script.greet("n1", "n2")
    (asked,) = script.sent()
    assert asked[0] == 121
    script.reply(asked, {"node": "n1"})
    assert call.value == {"node": "n1"}
    # now a leader is needed
    script.put()
    assert script.endpoint == "h:2"


def test_without_need_of_a_leader_an_orphan_will_do() -> None:
    script = Script()
    call = script.start(replica_status())
    script.greet("n1", None)
    script.reply(script.sent()[0], {})
    assert call.done
    script.advance(100)
    assert script.endpoint == "h:1"
    script.receive([2, "leader", {"leader": "n3", "endpoint": "h:3"}])
    assert script.endpoint == "h:1"
    script.lost()
    script.advance(100)
    assert script.core.target() is None  # nobody needs a connection
    script.start(replica_status())
    assert script.core.target() is not None


def test_queries_of_the_leader_need_no_session() -> None:
    script = Script()
    call = script.start(operations.checkpoints("linearizable"))
    script.greet()
    (asked,) = script.sent()
    assert asked == [104, asked[1], 0, 0]
    script.refuse(asked, 6, "not_leader", "h:2")
    assert script.endpoint == "h:2"
    script.greet("n2", "n2")
    (asked,) = script.sent()
    script.reply(asked, [1, []])
    assert call.value == [1, []]
    # a session is opened on the same connection when it is needed
    put = script.put()
    (opening,) = script.sent()
    again = script.start(operations.checkpoints("linearizable"))
    assert script.sent() == []  # not before it is clear that it leads
    script.reply(opening, [9])
    kinds = [message[0] for message in script.sent()]
    assert kinds == [24, 104]
    assert not put.done
    assert not again.done


# --- deadlines and outcomes ----------------------------------------------------------------


def test_nothing_reachable_is_unavailable() -> None:
    script = Script()
    call = script.put(timeout=2.0)
    tries = 0
    while not call.done:
        if script.core.target() is None:
            script.advance(0.01)
        else:
            tries += 1
            script.lost("Connection refused")
    error = error_of(call)
    assert isinstance(error, Unavailable)
    assert error.definite
    assert "h:1: Connection refused" in str(error)
    assert "put on checkpoint 'c'" in str(error)
    assert script.now == pytest.approx(12.0, abs=0.02)
    assert tries < 40


def hello_of(leader: str | None, node: str = "n1") -> dict[str, Any]:
    return {"version": 1, "node": node, "leader": leader, "endpoints": ENDPOINTS}


# --- two foundings of one name


ANOTHER = "a" * 32


def test_without_a_session_neither_of_two_foundings_is_used() -> None:
    script = Script("h:1 h:2")
    call = script.put()
    script.greet("n1", None)  # it knows no leader
    script.sent()
    script.advance(1.5)
    assert script.endpoint != "h:1"
    script.greet("n" + script.endpoint[-1], "n2", ANOTHER)
    assert script.sent() == []
    error = error_of(call)
    assert isinstance(error, InvalidParam)
    assert error.reason == "founding"
    assert error.definite
    assert "aaaaaaaa" in str(error)
    assert "ffffffff" in str(error)


def test_a_session_is_not_looked_for_in_another_founding() -> None:
    script = Script("h:1 h:2 h:3")
    script.ready()
    script.lost()
    script.greet("n2", "n2", ANOTHER)
    assert script.sent() == []
    call = script.put()
    script.attach("n3")  # one of ours is still there
    (put,) = script.sent()
    script.reply(put, 5)
    assert call.value == 5
    assert script.core.lost is None


def test_a_session_is_lost_when_the_whole_cluster_was_founded_anew() -> None:
    script = Script("h:1 h:2 h:3")
    script.ready()
    sent, unsent = script.put(), None
    assert script.sent()
    script.lost()
    unsent = script.put()
    for _ in range(3):
        script.advance(1.0)
        script.greet("n" + script.endpoint[-1], "n1", ANOTHER)
    assert script.sent() == []
    for call, definite in ((sent, False), (unsent, True)):
        error = error_of(call)
        assert isinstance(error, SessionLost)
        assert error.definite is definite
        assert "founded anew" in str(error)


def fail_all_but(script: Script, *strangers: str) -> None:
    """Each endpoint is tried: those told belong to another cluster now, the others are away."""
    for _ in range(4):
        script.advance(1.0)
        if script.core.target() is None:
            continue
        if script.endpoint in strangers:
            script.greet("n" + script.endpoint[-1], "n1", ANOTHER)
        else:
            script.lost("refused")


def test_one_replica_of_another_cluster_ends_no_session() -> None:
    script = Script("h:1 h:2 h:3")
    script.ready()
    script.lost()
    fail_all_but(script, "h:2")  # the others may be back any time
    fail_all_but(script, "h:2")
    assert script.core.lost is None
    call = script.put()
    while script.endpoint != "h:1":
        script.advance(1.0)
        script.lost("refused")
    script.attach("n1")
    (put,) = script.sent()
    script.reply(put, 5)
    assert call.value == 5


def test_a_session_is_lost_when_most_replicas_are_of_another_cluster_and_the_rest_is_away() -> None:
    script = Script("h:1 h:2 h:3")
    script.ready()
    call = script.put()
    script.lost()
    fail_all_but(script, "h:1", "h:3")
    error = error_of(call)
    assert isinstance(error, SessionLost)
    assert "founded anew" in str(error)


def test_a_replica_that_does_not_answer_has_the_next_one_tried_beside_it() -> None:
    script = Script()
    call = script.put()
    script.connected()
    first = script.number
    hello = script.sent()[0]
    assert script.core.wanted() == {first: "h:1"}
    script.advance(0.25)
    assert list(script.core.wanted().values()) == ["h:1", "h:2"]
    assert script.core.data_to_send(first) == b""
    script.advance(0.25)  # the second is not even connected
    assert list(script.core.wanted().values()) == ["h:1", "h:2", "h:3"]
    script.advance(0.4)
    assert len(script.core.wanted()) == 3  # each is being tried
    script.core.data_received(first, pack_messages([[0, hello[1], 1, hello_of("n1")]]), script.now)
    assert script.core.link is Link.ATTACHING  # slow, but it came first
    assert script.endpoint == "h:1"
    (opening,) = script.sent()
    script.reply(opening, [7])
    assert script.core.wanted() == {first: "h:1"}
    (put,) = script.sent()
    script.reply(put, 5)
    assert call.value == 5


def test_silent_replicas_are_given_up_each_in_its_time() -> None:
    script = Script()
    script.put()
    script.advance(1.0)
    assert list(script.core.wanted().values()) == ["h:2", "h:3"]
    assert script.core.router.problems == {"h:1": "no answer in time"}
    script.advance(0.1)
    assert list(script.core.wanted().values()) == ["h:2", "h:3", "h:1"]


def test_a_leader_that_does_not_attach_us_is_left_for_another_that_says_it_leads() -> None:
    script = Script()
    script.ready()
    script.lost()
    script.greet("n2", "n2")
    silent = script.number
    (attach,) = script.sent()
    assert attach[0] == 201
    script.advance(0.25)
    (beside,) = script.core.wanted().keys() - {silent}
    script.core.connected(beside, script.now)
    (hello,) = script.sent_on(beside)
    script.core.data_received(
        beside, pack_messages([[0, hello[1], 1, hello_of("n3", "n3")]]), script.now
    )
    assert script.number == silent  # it may still answer
    script.advance(0.76)
    assert script.number == beside
    assert silent in script.core.wanted()  # it may have attached us: a close would count as death
    assert script.sent()[0][0] == 201


def test_a_follower_asked_beside_tells_where_the_leader_is() -> None:
    script = Script("h:1 h:2")
    script.ready()
    script.lost()
    script.greet("n2", "n2")
    silent = script.number
    script.sent()
    script.advance(0.25)
    (beside,) = script.core.wanted().keys() - {silent}
    script.core.connected(beside, script.now)
    (hello,) = script.sent_on(beside)
    script.core.data_received(
        beside, pack_messages([[0, hello[1], 1, hello_of("n3", "n1")]]), script.now
    )
    script.advance(0.25)
    assert "h:3" in script.core.wanted().values()


def test_a_leader_that_is_not_there_does_not_keep_us_from_asking_on() -> None:
    """Followers go on naming a leader that died silently until they have elected another."""
    script = Script()
    script.ready()
    script.lost()
    script.greet("n2", "n1")  # h:1 is silent from now on
    script.advance(0.3)
    for _ in range(20):
        for number, endpoint in script.core.wanted().items():
            if endpoint == "h:3":
                script.core.connected(number, script.now)
                hellos = script.sent_on(number)
                if hellos:
                    script.core.data_received(
                        number,
                        pack_messages([[0, hellos[0][1], 1, hello_of("n3", "n3")]]),
                        script.now,
                    )
        if script.core.link is Link.ATTACHING:
            break
        script.advance(0.1)
    assert script.endpoint == "h:3"
    assert script.now < 12.0


def test_reached_but_no_leader_is_try_again() -> None:
    script = Script("h:1")
    call = script.put(timeout=0.05)
    script.connected()
    script.reply(script.sent()[0], {"version": 1, "node": "n1", "leader": None, "endpoints": {}})
    script.advance(0.06)
    error = error_of(call)
    assert isinstance(error, TryAgain)
    assert error.definite


def test_sent_and_silent_is_an_indefinite_timeout_and_settles_later() -> None:
    script = Script()
    script.ready()
    first = script.put(timeout=0.2)
    (sent,) = script.sent()
    script.advance(0.2)
    error = error_of(first)
    assert isinstance(error, Timeout)
    assert not error.definite
    second = script.put()
    (other,) = script.sent()
    assert other[2:4] == [2, 0]
    script.reply(sent, 1)  # late: nobody is told, but the number is settled
    script.reply(other, 2)
    assert second.value == 2
    script.put()
    assert script.sent()[0][2:4] == [3, 2]


def test_the_watermark_has_no_gaps() -> None:
    script = Script()
    script.ready()
    for _ in range(4):
        script.put()
    a, b, c, d = script.sent()
    assert [message[2] for message in (a, b, c, d)] == [1, 2, 3, 4]
    script.reply(c, 1)
    script.reply(b, 1)
    script.put()
    assert script.sent()[0][3] == 0
    script.reply(a, 1)
    script.put()
    assert script.sent()[0][3] == 3
    script.reply(d, 1)
    script.put()
    assert script.sent()[0][3] == 4


def test_only_try_again_is_definite_and_the_number_is_plugged() -> None:
    script = Script()
    script.ready()
    call = script.put(timeout=0.5)
    while not call.done:
        for message in script.sent():
            assert message[0] == 24
            script.refuse(message, 6, "busy")
        script.advance(0.01)
    error = error_of(call)
    assert isinstance(error, TryAgain)
    assert error.definite
    assert error.reason == "busy"
    script.advance(0.3)
    (plug,) = script.sent()
    assert plug == [11, plug[1], 1, 0, 0]
    script.refuse(plug, 9, "handle")
    assert script.core.pending == 0
    script.put()
    assert script.sent()[0][2:4] == [2, 1]


def test_busy_is_retried_with_growing_pauses_until_it_works() -> None:
    script = Script()
    script.ready()
    call = script.put()
    times = []
    for _ in range(8):
        while not (sent := script.sent()):
            script.advance(0.001)
        times.append(script.now)
        script.refuse(sent[0], 6, "busy")
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses[-1] > 10 * pauses[0]
    assert max(pauses) <= 0.2
    while not (sent := script.sent()):
        script.advance(0.01)
    script.reply(sent[0], 1)
    assert call.value == 1


def test_try_again_after_a_lost_copy_is_indefinite() -> None:
    script = Script()
    script.ready()
    call = script.put(timeout=1.0)
    script.sent()
    script.lost()
    script.attach("n2")
    (again,) = script.sent()
    assert again[2] == 1
    script.refuse(again, 6, "busy")
    script.advance(1.0)
    assert isinstance(error_of(call), Timeout)
    assert not error_of(call).definite


def test_a_read_that_times_out_is_definite() -> None:
    script = Script()
    script.ready()
    call = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"), 0.3)
    assert script.sent()[0][0] == 100
    script.advance(0.3)
    assert isinstance(error_of(call), Timeout)
    assert error_of(call).definite


def test_an_abandoned_command_is_repeated_as_a_plug() -> None:
    script = Script()
    script.ready()
    script.put(timeout=0.1)
    script.put(b"second")
    script.sent()
    script.advance(0.1)
    script.lost()
    script.attach("n1")
    plug, second = script.sent()
    assert plug == [11, plug[1], 1, 0, 0]
    assert second[2:] == [2, 0, 5, b"id", b"second"]
    # the cluster may answer with the result of the original
    script.reply(plug, 12)
    script.reply(second, 13)
    assert script.core.pending == 0


def test_refusals_are_typed_and_say_what_failed() -> None:
    script = Script()
    script.ready()
    call = script.put()
    (sent,) = script.sent()
    script.receive([0, sent[1], 12, ["section_missing", b"id", 2], True])
    error = error_of(call)
    assert isinstance(error, SectionNotExist)
    assert error.definite
    assert error.index == 2
    assert str(error) == "put on checkpoint 'c': section b'id' does not exist (vector element 2)"


def test_refusals_of_a_newer_replica() -> None:
    script = Script()
    script.ready()
    call = script.put()
    (sent,) = script.sent()
    script.refuse(sent, 99, "new {reason} {5}", "x")
    error = error_of(call)
    assert error.code == 2
    assert "new {reason} {5}" in str(error)


# --- replay --------------------------------------------------------------------------------


def test_everything_unanswered_is_sent_again_in_order() -> None:
    script = Script()
    script.ready()
    calls = [script.put(b"%d" % number) for number in range(4)]
    read = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    sent = script.sent()
    script.reply(sent[1], 5)
    script.lost()
    script.put(b"new")
    script.attach("n2")
    again = script.sent()
    assert [message[0] for message in again] == [24, 24, 24, 24, 100]
    assert [message[2] for message in again[:4]] == [1, 3, 4, 5]
    assert [message[6] for message in again[:4]] == [b"0", b"2", b"3", b"new"]
    script.reply(sent[0], 9)  # an id of the former connection means nothing
    assert not calls[0].done
    script.reply(again[0], 9)
    script.reply(again[4], [1, [b"x"]])
    assert calls[0].done
    assert read.done


def test_a_gap_makes_us_send_again_in_order() -> None:
    script = Script()
    script.ready()
    for number in range(3):
        script.put(b"%d" % number)
    a, b, c = script.sent()
    script.refuse(a, 6, "busy")
    script.put(b"3")
    assert script.sent() == []  # it would only be refused
    script.refuse(b, 6, "gap")
    script.refuse(c, 6, "gap")
    script.advance(0.01)
    assert [message[2] for message in script.sent()] == [1, 2, 3, 4]


def test_a_malformed_request_leaves_no_hole() -> None:
    script = Script()
    script.ready()
    call = script.put()
    (sent,) = script.sent()
    script.put()
    (other,) = script.sent()
    script.refuse(sent, 7, "schema", "put")
    assert error_of(call).code == 7
    script.refuse(other, 6, "gap")
    script.advance(0.01)
    plug, again = script.sent()
    assert plug == [11, plug[1], 1, 0, 0]
    assert again[2] == 2
    script.refuse(plug, 7, "schema", "the refusal was remembered after all")
    assert script.core.pending == 1


def test_answered_and_forgotten_is_indefinite_only_if_a_copy_was_lost() -> None:
    for lose in (False, True):
        script = Script()
        script.ready()
        call = script.put()
        (sent,) = script.sent()
        if lose:
            script.lost()
            script.attach()
            (sent,) = script.sent()
        script.refuse(sent, 2, "answered")
        assert error_of(call).definite is not lose


def test_leadership_lost_sends_the_same_number_elsewhere() -> None:
    script = Script()
    script.ready()
    call = script.put(timeout=0.3)
    (sent,) = script.sent()
    script.refuse(sent, 6, "leadership_lost", definite=False)
    assert script.endpoint == "h:2"
    script.attach("n2")
    (again,) = script.sent()
    assert again[2] == 1
    script.refuse(again, 6, "busy")
    script.advance(0.3)
    assert isinstance(error_of(call), Timeout)


def test_outcomes_on_their_way_are_waited_for_before_moving() -> None:
    script = Script()
    script.ready()
    first, second = script.put(timeout=0.3), script.put(timeout=0.3)
    a, b = script.sent()
    script.refuse(a, 6, "not_leader", "h:3")
    assert script.endpoint == "h:1"
    third = script.put(timeout=0.3)
    assert script.sent() == []
    script.refuse(b, 6, "not_leader", "h:3")
    assert script.endpoint == "h:3"
    script.advance(0.3)
    for call in (first, second, third):
        assert isinstance(error_of(call), TryAgain)
        assert error_of(call).definite


def test_but_not_for_long() -> None:
    script = Script()
    script.ready()
    first, second = script.put(timeout=0.3), script.put(timeout=0.3)
    a, _ = script.sent()
    script.refuse(a, 6, "stopping")
    script.advance(0.09)
    assert script.endpoint == "h:1"
    script.advance(0.02)
    assert script.endpoint == "h:2"
    script.advance(0.2)
    assert isinstance(error_of(first), TryAgain)
    assert isinstance(error_of(second), Timeout)


# --- the session ---------------------------------------------------------------------------


def test_the_session_is_kept_alive() -> None:
    script = Script(session_timeout_ns=3 * limits.SECOND_NS)
    script.ready()
    times = []
    while script.now < 13.5:
        script.advance(0.01)
        for message in script.sent():
            assert message == [202, message[1]]
            times.append(script.now)
            script.reply(message, [0])
    assert len(times) == 3
    assert times[1] - times[0] == pytest.approx(1.0, abs=0.05)


def test_a_refused_keepalive_ends_the_session_or_moves_us() -> None:
    script = Script(session_timeout_ns=3 * limits.SECOND_NS)
    script.ready()
    script.advance(1.0)
    script.refuse(script.sent()[0], 6, "busy")
    assert script.endpoint == "h:1"
    script.advance(1.0)
    script.refuse(script.sent()[0], 6, "not_leader", "h:2")
    assert script.endpoint == "h:2"
    script.attach("n2")
    script.advance(1.0)
    script.refuse(script.sent()[0], 9, "session")
    assert isinstance(error_of(script.put()), SessionLost)


def test_silence_is_probed_then_suspected_and_the_old_connection_kept_for_a_while() -> None:
    script = Script()
    script.ready()
    script.put()
    (sent,) = script.sent()
    number = script.number
    script.advance(0.5)
    (probe,) = script.sent()
    assert probe[0] == 121  # a leader that waits for a majority answers this, no keepalive
    script.reply(probe, {"revision": 1})
    script.advance(0.5)
    assert script.sent()[0][0] == 121
    script.advance(0.5)
    assert script.endpoint == "h:2"
    assert number in script.core.wanted()  # closing it could end the session
    script.core.data_received(number, pack_messages([[0, sent[1], 1, 5]]), script.now)
    script.core.connection_lost(number + 77, "unknown", script.now)
    script.greet("n2", "n1")
    script.attach("n1")
    assert number not in script.core.wanted()
    assert script.sent()[0][2] == 1


def test_a_connection_whose_attach_went_unanswered_is_kept() -> None:
    """It may have been carried out: then a close would end the session of a living client."""
    script = Script()
    script.ready()
    script.core.connection_lost(script.number, "reset", script.now)
    script.greet("n2", "n2")
    (attach,) = script.sent()
    assert attach[0] == 201
    number = script.number
    while script.core.target() is None or script.number == number:
        script.advance(0.1)
    assert number in script.core.wanted()
    script.attach("n1")
    assert number not in script.core.wanted()


def test_a_kept_connection_may_break() -> None:
    script = Script()
    script.ready()
    script.put()
    number = script.number
    script.advance(1.0)
    assert number in script.core.wanted()
    script.core.connection_lost(number, "reset", script.now)
    assert number not in script.core.wanted()
    assert script.endpoint == "h:2"


def test_only_a_few_connections_are_kept() -> None:
    script = Script(
        session_timeout_ns=60 * limits.SECOND_NS, disconnect_grace_ns=3 * limits.SECOND_NS
    )
    script.core.roles.watch(1.0)
    script.ready()
    kept = []
    for _ in range(6):
        script.put()
        kept.append(script.number)
        number = script.number
        script.advance(1.0)
        while script.core.target() is None or script.number == number:
            script.advance(0.1)
        script.connected()
        script.reply(
            script.sent()[0], {"version": 1, "node": "n1", "leader": "n1", "endpoints": {}}
        )
        script.core._attached = True  # as if it had been, without the end of keeping
    assert sum(number in script.core.wanted() for number in kept) <= 4
    # one that was closed may be the one that counts, and its close begins the grace
    assert script.core.safe_until() <= script.now + 2.0


def test_silence_without_a_session_is_probed_too() -> None:
    script = Script()
    script.start(operations.checkpoints("linearizable"))
    script.greet()
    script.sent()
    script.advance(0.5)
    assert script.sent()[0][0] == 121


def test_a_lost_session_ends_everything_honestly() -> None:
    script = Script()
    script.ready()
    accepted = script.put(opened=WEAK)
    script.receive([1, script.sent()[0][1]])
    assert accepted.accepted
    sent = script.put()
    script.sent()
    refused = script.put()
    script.refuse(script.sent()[0], 6, "busy")
    waiting = script.put()
    read = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    barrier = script.start(operations.synchronize(OPENED))
    status = script.start(replica_status())
    script.receive([2, "session_lost", "expired"])
    for call, definite in [
        (sent, False),
        (refused, True),
        (waiting, True),
        (read, True),
        (barrier, False),
    ]:
        assert isinstance(error_of(call), SessionLost)
        assert error_of(call).definite is definite, call.name
        assert "expired" in str(call.error)
    assert not status.done
    late = script.put()
    assert isinstance(error_of(late), SessionLost)
    assert error_of(late).definite
    # what was accepted is reported once, by its own checkpoint
    other = script.start(operations.synchronize(OPENED))
    assert isinstance(error_of(other), SessionLost)
    mine = script.start(operations.synchronize(WEAK))
    assert isinstance(error_of(mine), SessionLost)
    assert not error_of(mine).definite
    assert "put" in str(mine.error)
    script.receive([2, "session_lost", "again"])


def test_a_refusal_by_the_session_ends_it() -> None:
    script = Script()
    script.ready()
    call = script.put()
    read = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    put, asked = script.sent()
    script.refuse(asked, 9, "session")
    assert isinstance(error_of(read), SessionLost)
    assert isinstance(error_of(call), SessionLost)
    assert not error_of(call).definite
    script.reply(put, 1)


def test_a_refused_command_of_an_unknown_session_is_definite_if_it_was_the_only_copy() -> None:
    script = Script()
    script.ready()
    call = script.put()
    script.refuse(script.sent()[0], 9, "session")
    assert isinstance(error_of(call), SessionLost)
    assert error_of(call).definite


def test_attaching_to_a_forgotten_session() -> None:
    script = Script()
    script.ready()
    call = script.put()
    script.sent()
    script.lost()
    status = script.start(operations.checkpoints("linearizable"))
    script.greet("n2", "n2")
    (attach,) = script.sent()
    assert attach == [201, attach[1], 7, b"s" * 16]
    script.refuse(attach, 9, "session")
    assert isinstance(error_of(call), SessionLost)
    assert not error_of(call).definite
    # what needs no session goes on
    script.reply(script.sent()[0], [0, []])
    assert status.done


def test_attaching_where_nobody_leads_any_more() -> None:
    script = Script()
    script.ready()
    script.lost()
    script.greet("n2", "n2")
    script.refuse(script.sent()[0], 6, "not_leader", "h:3")
    assert script.endpoint == "h:3"


def test_no_session_to_be_had() -> None:
    script = Script()
    call = script.put()
    query = script.start(operations.checkpoints("linearizable"))
    script.greet()
    (opening,) = script.sent()
    script.refuse(opening, 18, "limit", "sessions")
    assert isinstance(error_of(call), NoResources)
    assert error_of(call).definite
    (asked,) = script.sent()
    assert asked[0] == 104
    assert not query.done
    script.put()
    (opening,) = script.sent()
    script.refuse(opening, 6, "not_leader", None)
    assert script.endpoint == "h:2"


def test_replicas_that_refuse_us_fail_calls_at_once_when_all_do() -> None:
    script = Script()
    call = script.put()
    for number in (1, 2, 3):
        assert not call.done
        script.connected()
        assert script.endpoint == f"h:{number}"
        script.refuse(script.sent()[0], 3, "version")
    error = error_of(call)
    assert isinstance(error, VersionMismatch)
    assert error.definite


def test_one_replica_that_refuses_us_is_passed_over() -> None:
    script = Script()
    call = script.put()
    script.connected()
    script.refuse(script.sent()[0], 11, "token")
    assert script.endpoint == "h:2"
    script.greet("n2", "n2")
    script.reply(script.sent()[0], [7])
    script.reply(script.sent()[0], 1)
    assert call.value == 1


def test_greetings_refused_for_now() -> None:
    script = Script("h:1")
    call = script.put(timeout=0.5)
    while not call.done:
        if script.core.target() is None:
            script.advance(0.01)
        else:
            script.connected()
            script.refuse(script.sent()[0], 6, "busy")
    assert isinstance(error_of(call), Unavailable)


def test_access_denied_by_all_keeps_what_may_have_happened() -> None:
    script = Script("h:1")
    script.ready()
    call = script.put()
    script.sent()
    read = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    queued = script.start(operations.status(OPENED, "linearizable"))
    script.sent()
    script.lost()
    fresh = script.put()
    for _ in range(3):
        while script.core.target() is None:
            script.advance(0.1)
        script.connected()
        script.refuse(script.sent()[0], 11, "token")
    assert isinstance(error_of(fresh), Access)
    assert not call.done
    assert not read.done
    assert not queued.done


@pytest.mark.parametrize(
    "message",
    [
        [9, 1, 1],
        [0],
        [0, "x"],
        [0, [], 1, 1],
        5,
        [2, "leader"],
        [2, "leader", 5],
        [],
    ],
)
def test_malformed_messages_end_the_connection(message: Any) -> None:
    script = Script()
    script.ready()
    call = script.put()
    script.sent()
    script.receive(message)
    if message == [0, "x"]:
        assert script.endpoint == "h:1"  # a reply to nothing is ignored
        return
    assert script.endpoint == "h:2"
    assert "protocol error" in script.core.where()
    assert not call.done


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ("hello", {}),
        ("hello", None),
        ("hello", {"version": 2, "node": "n1", "leader": None, "endpoints": {}}),
        ("hello", {"version": 1, "node": 5, "leader": None, "endpoints": {}}),
        ("open", ["x"]),
        ("open", [0]),
        ("open", None),
        ("attach", []),
        ("attach", ["x"]),
    ],
)
def test_malformed_handshakes_end_the_connection(step: str, value: Any) -> None:
    script = Script()
    if step == "attach":
        script.ready()
        script.lost()
        script.greet("n2", "n2")
    else:
        script.put()
        if step == "open":
            script.greet()
        else:
            script.connected()
    number = script.number
    script.reply(script.sent()[0], value)
    assert script.number != number


def test_garbage_ends_the_connection() -> None:
    script = Script()
    script.ready()
    script.core.data_received(script.number, b"\xff" * 20, script.now)
    assert script.endpoint == "h:2"


# --- limits --------------------------------------------------------------------------------


def test_the_window_makes_calls_wait() -> None:
    script = Script()
    script.ready()
    calls = [script.put() for _ in range(contract.SEQUENCE_WINDOW + 10)]
    sent = script.sent()
    assert len(sent) == contract.SEQUENCE_WINDOW
    script.reply(sent[1], 1)
    assert script.sent() == []  # the first is still open
    script.reply(sent[0], 1)
    assert [message[2] for message in script.sent()] == [
        contract.SEQUENCE_WINDOW + 1,
        contract.SEQUENCE_WINDOW + 2,
    ]
    assert calls[1].done


def test_bytes_in_flight_are_limited_and_frames_split() -> None:
    script = Script()
    script.ready()
    for _ in range(20):
        script.put(bytes(contract.INLINE_WRITE_BYTES_MAX))
    sent = script.sent()  # the decoder would have refused a frame that is too long
    assert (
        len(sent) * contract.INLINE_WRITE_BYTES_MAX <= BYTES_MAX + contract.INLINE_WRITE_BYTES_MAX
    )
    total = len(sent)
    while sent:
        script.receive(*[[0, message[1], 1, 1] for message in sent])
        sent = script.sent()
        total += len(sent)
    assert total == 20


def test_many_small_messages_share_a_frame_and_vectors_are_counted() -> None:
    script = Script()
    script.ready()
    for _ in range(3):
        script.start(operations.write_many(OPENED, [(b"i", 0, bytes(300_000))] * 3))
    assert len(script.sent()) == 3


def test_open_queries_are_limited() -> None:
    script = Script()
    script.ready()
    for _ in range(1030):
        script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    sent = script.sent()
    assert len(sent) == 1024
    script.reply(sent[0], [1, [b""]])
    assert len(script.sent()) == 1


# --- reads ---------------------------------------------------------------------------------


def test_reads_carry_what_must_be_applied_before() -> None:
    script = Script()
    script.ready()
    script.put(opened=WEAK)
    script.put()
    first, second = script.sent()
    read = operations.read(OPENED, b"id", 1, 2, "linearizable")
    script.start(read)
    (sent,) = script.sent()
    assert sent == [100, sent[1], 0, 0, 5, [[b"id", 1, 2]]]
    script.receive([1, first[1]])
    script.start(operations.read_all(OPENED, "local"))
    assert script.sent()[0][2:] == [1, 1, 5]
    script.reply(second, 4)
    script.start(operations.section_ids(OPENED, "linearizable"))
    assert script.sent()[0][2:4] == [2, 0]


def test_local_reads_go_to_any_replica_by_name() -> None:
    script = Script()
    script.ready()
    script.lost()
    local = script.start(operations.read(OPENED, b"id", 0, None, "local"))
    strict = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    listing = script.start(operations.checkpoints("local"))
    script.greet("n2", None)
    sent = script.sent()
    assert [message[2:] for message in sent] == [[0, 1, "c", [[b"id", 0, None]]], [0, 1]]
    script.reply(sent[0], [3, [b"x"]])
    script.reply(sent[1], [3, []])
    assert local.done
    assert listing.done
    assert not strict.done


def test_queries_are_told_to_try_again() -> None:
    script = Script()
    script.ready()
    call = script.start(digest(b"nonce"))
    (sent,) = script.sent()
    script.refuse(sent, 6, "busy")
    put = script.put()
    (other,) = script.sent()  # a command need not wait for that
    script.reply(other, 1)
    assert put.done
    script.advance(0.1)
    (sent,) = script.sent()
    script.refuse(sent, 6, "not_leader")  # of a question to any replica: no reason to move
    assert script.endpoint == "h:1"
    script.lost()
    script.greet("n2", None)
    assert script.sent()[0][0] == 123
    assert not call.done


def test_retries_work_before_the_session_is_back() -> None:
    script = Script()
    call = script.start(digest(b"nonce"))
    script.greet("n1", "n2")
    script.refuse(script.sent()[0], 6, "busy")
    script.advance(0.1)
    script.reply(script.sent()[0], [1, "00"])
    assert call.value == [1, "00"]


def test_a_query_refused_for_good() -> None:
    script = Script()
    script.ready()
    call = script.start(operations.read(OPENED, b"id", 9, None, "linearizable"))
    script.refuse(script.sent()[0], 7, "offset", 4)
    assert error_of(call).reason == "offset"


def test_transfer_is_not_repeated_blindly() -> None:
    script = Script()
    call = script.start(operations.transfer("n2"))
    script.greet()
    (sent,) = script.sent()
    assert sent == [122, sent[1], "n2"]
    script.refuse(sent, 6, "busy")
    script.advance(0.1)
    (sent,) = script.sent()
    script.lost()
    assert isinstance(error_of(call), Timeout)
    assert not error_of(call).definite
    other = script.start(operations.transfer(None))
    script.greet("n2", "n2")
    script.refuse(script.sent()[0], 6, "leadership_lost", definite=False)
    assert isinstance(error_of(other), Timeout)
    silent = script.start(operations.transfer(None), 0.2)
    while script.core.target() is None:
        script.advance(0.01)
    script.greet("n3", "n3")
    assert script.sent()[0][0] == 122
    script.advance(0.2)
    assert isinstance(error_of(silent), Timeout)
    assert not error_of(silent).definite


# --- asynchronous checkpoints --------------------------------------------------------------


def test_accepted_writes_return_and_are_settled_by_synchronize() -> None:
    script = Script()
    script.ready()
    call = script.put(opened=WEAK)
    (sent,) = script.sent()
    script.receive([1, sent[1]])
    assert operations.decoded(call) is None
    assert script.core.unsettled == 1
    barrier = script.start(operations.synchronize(WEAK))
    assert not barrier.done
    script.receive([1, sent[1]], [1, 999])  # said twice, said of nothing
    script.reply(sent, 17)
    assert barrier.value == 17
    assert script.core.take_completed() == [call, barrier]
    assert script.start(operations.synchronize(WEAK)).value == 17


def synchronized(script: Script, opened: Opened = OPENED) -> Any:
    return script.start(operations.synchronize(opened)).value


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: operations.open_checkpoint("c", None, "rw"), [5, 1, True, [], 31]),
        (lambda: operations.create(OPENED, b"a", b"", None, None), [31, b"a"]),
        (lambda: operations.create(OPENED, b"a", bytes(LARGE), None, None), [31, b"a"]),
        (lambda: operations.active_replica_set(OPENED, False), [1, 31]),
        (lambda: operations.put(OPENED, b"a", b""), 31),
        (lambda: operations.unlink("c"), 31),
        (lambda: operations.read(OPENED, b"a", 0, None, "local"), [31, [b""]]),
        (lambda: operations.read_versioned(OPENED, b"a", "linearizable"), [31, b""]),
        (lambda: operations.read_all(OPENED, "linearizable"), [31, []]),
        (lambda: operations.section_ids(OPENED, "linearizable"), [31, []]),
        (lambda: operations.status(OPENED, "linearizable"), [31, []]),
        (lambda: operations.checkpoints("linearizable"), [31, []]),
        (lambda: appending(b"x"), [31, 5]),
        (lambda: appending(bytes(LARGE)), [31, 5]),
        (lambda: a_transaction(), [31, [None]]),
        (lambda: operations.section_id_page(OPENED, b"", None, 5, "linearizable"), [31, []]),
        (lambda: operations.section_page(OPENED, b"", None, 5, "linearizable"), [31, []]),
        (lambda: operations.checkpoint_page("", None, 5, "linearizable"), [31, []]),
    ],
)
def test_every_revision_that_is_told_is_known(call: Any, value: Any) -> None:
    script = Script()
    script.ready()
    assert synchronized(script) == 0
    script.start(call())
    for _ in range(3):
        for message in script.sent():
            script.reply(message, None if message[0] == 26 else value)
    assert synchronized(script) == 31
    assert synchronized(script, WEAK) == 31
    script.start(operations.read_all(OPENED, "local"))
    (behind,) = script.sent()
    script.reply(behind, [30, []])
    assert synchronized(script) == 31


@pytest.mark.parametrize("value", [[], None, 5, b"12", ["1"], [None], [True], {"revision": 4}])
def test_replies_without_a_revision_change_none(value: Any) -> None:
    script = Script()
    script.ready()
    for call in (
        operations.create(OPENED, b"a", b"", None, None),
        operations.read_all(OPENED, "linearizable"),
    ):
        script.start(call)
        (sent,) = script.sent()
        script.reply(sent, value)
        assert call.done
    assert synchronized(script) == (5 if value == 5 else 0)
    assert script.core.link is Link.READY


def test_signs_of_life_tell_the_revision() -> None:
    script = Script(session_timeout_ns=3 * 10**9)
    script.ready()
    script.advance(1.0)
    (keepalive,) = script.sent()
    assert keepalive[0] == 202
    script.reply(keepalive, [40])
    assert synchronized(script) == synchronized(script, WEAK) == 40


def test_synchronize_tells_the_revision_of_what_was_written() -> None:
    """Of an asynchronous checkpoint; others' later changes have nothing to do with it."""
    script = Script()
    script.ready()
    script.put(opened=WEAK)
    script.start(operations.checkpoints("linearizable"))
    put, query = script.sent()
    script.receive([1, put[1]])
    script.reply(query, [90, []])
    early = script.start(operations.synchronize(WEAK), 0.1)
    script.advance(0.2)
    assert isinstance(error_of(early), Timeout)
    barriers = [script.start(operations.synchronize(WEAK)) for _ in range(2)]
    everything = script.start(operations.synchronize(OPENED))
    script.reply(put, 17)
    assert [barrier.value for barrier in barriers] == [17, 17]
    assert everything.value == 90
    assert synchronized(script, WEAK) == 90


def test_accepted_writes_are_replayed() -> None:
    script = Script()
    script.ready()
    call = script.put(b"keep me", timeout=0.1, opened=WEAK)
    (sent,) = script.sent()
    script.receive([1, sent[1]])
    script.advance(0.2)
    assert call.error is None
    script.lost()
    script.attach("n2")
    (again,) = script.sent()
    assert again[2:] == [1, 0, 6, b"id", b"keep me"]


def test_what_was_accepted_waits_for_room_at_the_next_leader() -> None:
    script = Script()
    script.ready()
    kept = script.put(b"keep me", opened=WEAK)
    (sent,) = script.sent()
    script.receive([1, sent[1]])
    script.lost()
    script.attach("n2")
    new = script.put(b"new", opened=WEAK)
    for _ in range(3):
        waiting = [message for message in script.sent() if message[0] == 24]
        assert waiting[0][2:] == [1, 0, 6, b"id", b"keep me"]
        script.refuse(waiting[0], 15, "full")
        for message in waiting[1:]:
            script.refuse(message, 6, "gap")
        assert kept.error is None
        script.advance(0.5)
    first, late = [message for message in script.sent() if message[0] == 24]
    script.reply(first, 17)
    assert script.core.unsettled == 0
    assert late[2:] == [2, 0, 6, b"id", b"new"]
    script.refuse(late, 15, "full")
    assert isinstance(error_of(new), NoSpace), "what was not accepted is refused, for certain"
    assert error_of(new).definite


def test_a_refusal_found_late_is_raised_by_the_next_synchronize() -> None:
    script = Script()
    script.ready()
    script.put(opened=WEAK)
    script.put(opened=WEAK)
    first, second = script.sent()
    script.receive([1, first[1]], [1, second[1]])
    barrier = script.start(operations.synchronize(WEAK))
    script.refuse(first, 12, "section_missing", b"id")
    script.refuse(second, 12, "section_missing", b"id")
    assert isinstance(error_of(barrier), SectionNotExist)
    assert script.start(operations.synchronize(WEAK)).error is None
    script.put(opened=WEAK)
    (third,) = script.sent()
    script.receive([1, third[1]])
    script.refuse(third, 11, "fenced", 3)
    everything = script.start(operations.synchronize(None))
    assert error_of(everything).reason == "fenced"
    assert script.start(operations.synchronize(None)).error is None


def test_synchronize_has_a_deadline() -> None:
    script = Script()
    script.ready()
    script.put(opened=WEAK)
    (sent,) = script.sent()
    script.receive([1, sent[1]])
    early = script.start(operations.synchronize(WEAK), 0.2)
    late = script.start(operations.synchronize(WEAK), 5.0)
    script.advance(0.2)
    assert isinstance(error_of(early), Timeout)
    assert not error_of(early).definite
    script.reply(sent, 1)
    assert late.value == 1


# --- large data ----------------------------------------------------------------------------

LARGE = contract.INLINE_WRITE_BYTES_MAX + 1


def chunks_of(messages: list[Any]) -> list[Any]:
    return [message for message in messages if message[0] == 26]


def drain(script: Script, until: int = 500) -> list[Any]:
    """Answer everything with success; return what was sent."""
    everything = []
    for _ in range(until):
        sent = script.sent()
        if not sent:
            break
        everything += sent
        script.receive(*[[0, message[1], 1, 1] for message in sent])
    return everything


def test_large_data_travels_as_chunks() -> None:
    script = Script()
    script.ready()
    data = bytes(range(256)) * 4096 + b"!"
    call = script.put(data)
    sent = drain(script)
    *chunks, put = sent
    assert [message[0] for message in chunks] == [26] * 5
    assert [message[2] for message in sent] == [1, 2, 3, 4, 5, 6]
    assert {message[4] for message in chunks} == {1}
    assert [message[5] for message in chunks] == [n * 256 * 1024 for n in range(5)]
    assert b"".join(message[6] for message in chunks) == data
    assert put[4:] == [5, b"id", 1]
    assert call.value == 1


def test_other_writes_slip_in_between() -> None:
    script = Script()
    script.ready()
    script.put(bytes(16 * limits.MIB))
    first = script.sent()
    small = script.put(b"small")
    assert len(first) * contract.STAGE_CHUNK_BYTES <= 2 * limits.MIB
    (slipped_in,) = script.sent()
    script.reply(slipped_in, 1)
    assert small.done


def test_a_vector_stages_its_largest_elements() -> None:
    script = Script()
    script.ready()
    call = script.start(
        operations.write_many(
            OPENED,
            [(b"a", 0, b"a" * 600_000), (b"b", 1, b"b" * 700_000), (b"c", 2, b"c" * 100)],
        )
    )
    sent = drain(script)
    assert len(chunks_of(sent)) == 3
    assert sent[-1][5] == [[b"a", 0, b"a" * 600_000], [b"b", 1, 1], [b"c", 2, b"c" * 100]]
    assert call.done


def test_staging_room_is_shared() -> None:
    script = Script()
    script.ready()
    calls = [script.put(bytes(50 * limits.MIB), 1000) for _ in range(3)]
    tiny = script.put(bytes(LARGE), 1000)
    expired = script.put(bytes(LARGE), 0.001)
    staged = dropped = high = 0
    script.advance(0.002)
    for _ in range(2000):
        sent = script.sent()
        if not sent:
            break
        for message in sent:
            if message[0] == 26:
                staged += len(message[6])
            else:
                dropped += 1
                staged -= 50 * limits.MIB if dropped <= 3 else LARGE
            high = max(high, staged)
        script.receive(*[[0, message[1], 1, 1] for message in sent])
    assert all(call.error is None and call.done for call in [*calls, tiny])
    assert isinstance(error_of(expired), TryAgain)
    assert high <= contract.STAGED_BYTES_PER_SESSION_MAX
    assert script.core._log.staging.bytes == 0


def test_a_refused_chunk_fails_the_write_and_drops_the_stage() -> None:
    script = Script()
    script.ready()
    call = script.put(bytes(9 * limits.MIB))
    sent = script.sent()
    assert len(chunks_of(sent)) == len(sent) < 36
    script.refuse(sent[0], 18, "limit", "staged bytes")
    error = error_of(call)
    assert isinstance(error, NoResources)
    assert error.definite
    drop = script.sent()[-1]
    assert drop[0] == 23
    assert drop[4:] == [0, b"", 1]


def test_a_chunk_refused_after_the_command_was_sent_is_the_reason() -> None:
    script = Script()
    script.ready()
    call = script.put(bytes(LARGE))
    *chunks, put = script.sent()
    script.refuse(chunks[0], 18, "limit", "staged bytes")
    script.refuse(chunks[1], 18, "stage")
    assert not call.done
    script.refuse(put, 18, "stage")
    assert error_of(call).reason == "limit"


def test_a_large_write_given_up_half_way_never_happens() -> None:
    script = Script()
    script.ready()
    call = script.put(bytes(9 * limits.MIB), timeout=0.2)
    sent = script.sent()
    script.advance(0.2)
    assert isinstance(error_of(call), TryAgain)
    assert error_of(call).definite
    script.receive(*[[0, message[1], 1, None] for message in sent])
    (drop,) = script.sent()
    assert drop[0] == 23
    assert drop[4:] == [0, b"", 1]


def test_a_large_write_given_up_in_flight_is_plugged_with_its_stages() -> None:
    script = Script()
    script.ready()
    call = script.put(bytes(LARGE), timeout=0.2)
    script.sent()
    script.advance(0.2)
    assert isinstance(error_of(call), Timeout)
    script.lost()
    script.attach("n2")
    *chunks, put = script.sent()
    assert {message[0] for message in chunks} == {11}
    assert put == [24, put[1], 6, 0, 0, b"id", 1]
    script.refuse(put, 9, "handle")
    assert script.core._log.staging.bytes == 0


def test_a_malformed_large_write_is_plugged_with_its_stages() -> None:
    script = Script()
    script.ready()
    script.put(bytes(LARGE))
    *_, put = script.sent()
    script.refuse(put, 7, "schema")
    script.advance(0.01)
    (plug,) = script.sent()
    assert plug == [24, plug[1], 6, 0, 0, b"id", 1]


def test_a_lost_session_forgets_stages() -> None:
    script = Script()
    script.ready()
    calls = [script.put(bytes(60 * limits.MIB)) for _ in range(3)]
    script.sent()
    script.receive([2, "session_lost", "x"])
    assert all(isinstance(error_of(call), SessionLost) for call in calls)
    assert all(error_of(call).definite for call in calls)
    assert script.core._log.staging.bytes == 0
    assert script.sent() == []


# --- giving up -----------------------------------------------------------------------------


def test_cancelled_calls_are_not_completed() -> None:
    script = Script()
    script.ready()
    call = script.put()
    queued = script.start(operations.read(OPENED, b"id", 0, None, "linearizable"))
    put, read = script.sent()
    script.core.cancel(call, script.now)
    script.core.cancel(queued, script.now)
    assert script.core.take_completed() == []
    script.reply(read, [1, [b""]])
    script.reply(put, 1)
    assert script.core.take_completed() == []
    assert script.core.pending == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_open_that_nobody_waits_for_leaves_no_opener(when: str) -> None:
    script = Script()
    script.ready()
    call = script.start(operations.open_checkpoint("c", None, "rw"))
    (sent,) = script.sent()
    value = [42, 1, False, [1, 4, 4, 4, 4, 4], 0]
    if when == "before":
        script.core.cancel(call, script.now)
        script.reply(sent, value)
    else:
        script.reply(sent, value)
        script.core.cancel(call, script.now)
    (close,) = script.sent()
    assert close[0] == 11
    assert close[4] == 42


def test_cancelling_what_failed_or_returned_nothing_of_note() -> None:
    script = Script()
    script.ready()
    call = script.put()
    (sent,) = script.sent()
    script.refuse(sent, 12, "section_missing", b"id")
    script.core.cancel(call, script.now)
    other = script.put()
    script.reply(script.sent()[0], 5)
    script.core.cancel(other, script.now)
    assert script.sent() == []


def test_closing_ends_everything() -> None:
    script = Script()
    script.ready()
    sent = script.put()
    script.sent()
    waiting = script.start(operations.checkpoints("linearizable"))
    number = script.number
    script.core.close()
    assert script.core.target() is None
    assert number not in script.core.wanted()
    assert isinstance(error_of(sent), BadHandle)
    assert not error_of(sent).definite
    assert isinstance(error_of(waiting), BadHandle)
    for call in (
        operations.put(OPENED, b"i", b""),
        operations.read(OPENED, b"i", 0, None, "linearizable"),
        operations.synchronize(None),
        operations.checkpoints("linearizable"),
    ):
        error = error_of(script.start(call))
        assert isinstance(error, BadHandle)
        assert error.definite
    script.advance(10)
    assert script.core.target() is None


def test_events_of_former_connections_are_ignored() -> None:
    script = Script()
    script.ready()
    number = script.number
    script.lost()
    script.core.connected(number, script.now)
    script.core.connection_lost(number, "again", script.now)
    script.core.data_received(number, b"\xff" * 9, script.now)
    assert script.endpoint == "h:2"
    script.core.data_received(script.number, b"\xff" * 9, script.now)  # not connected yet
    assert script.endpoint == "h:2"


def test_a_reconnect_that_nobody_needs_any_more_is_not_made() -> None:
    script = Script("h:1")
    script.start(replica_status(), 0.03)
    for _ in range(2):
        script.lost("refused")
        if script.core.target() is None:
            break
    script.advance(5.0)
    assert script.core.target() is None


def test_calls_need_what_they_need() -> None:
    assert operations.ready().needs is Needs.ATTACHED
    assert not hasattr(operations.ready(), "__dict__")


def test_what_the_faces_ask_of_the_core() -> None:
    script = Script()
    assert script.core.credentials == (0, b"s" * 16)
    script.ready()
    assert script.core.credentials == (7, b"s" * 16)
    assert script.core.endpoint == "h:1"
    assert script.core.commands_sent == 0
    script.put()
    script.sent()
    assert script.core.commands_sent == 1


def test_a_role_is_put_where_the_component_takes_it() -> None:
    script = Script()
    script.ready()
    script.core.roles.serve(("g", "c"), lambda: None)
    role = {"group": "g", "component": "c", "assignment": 3}
    script.receive([2, "role", role], [2, "of a later version", 5])
    assert script.core.roles.take(("g", "c")) == role


# --- one's own clock ------------------------------------------------------------------------


def watched(**config: Any) -> Script:
    script = Script("h:1", session_timeout_ns=6 * limits.SECOND_NS, **config)
    script.core.roles.watch(1.0)
    script.ready()
    return script


def test_a_session_may_be_over_its_timeout_after_the_last_answered_sign_of_life() -> None:
    script = watched(disconnect_grace_ns=0)
    begun = script.now
    assert script.core.safe_until() == begun + 5.0
    script.advance(1.3)
    (alive,) = script.sent()
    sent = begun + 1.25
    script.advance(0.4)
    script.reply(alive, [3])
    assert script.core.safe_until() == pytest.approx(sent + 5.0)  # from when it was sent
    script.advance(4.5)
    assert not script.core.roles.isolated
    script.advance(0.2)
    assert script.core.roles.isolated


def test_a_break_leaves_the_grace_and_none_leaves_it_to_the_fence() -> None:
    script = watched(disconnect_grace_ns=3 * limits.SECOND_NS)
    script.advance(1.0)
    script.lost()
    assert script.core.safe_until() == pytest.approx(script.now + 2.0)
    script.advance(2.0)
    assert script.core.roles.isolated
    script.attach()
    assert not script.core.roles.isolated
    assert script.core.safe_until() == pytest.approx(script.now + 5.0)
    without = watched(disconnect_grace_ns=0)
    without.lost()
    assert without.core.safe_until() == pytest.approx(without.now + 5.0)


def test_a_break_after_a_silence_counts_from_where_the_silence_began() -> None:
    script = watched(disconnect_grace_ns=3 * limits.SECOND_NS)
    script.advance(1.0)
    asked = script.now
    script.put()
    script.sent()
    script.advance(0.3)
    script.lost()
    assert script.core.safe_until() == pytest.approx(asked + 2.0)


def test_who_says_something_is_not_silent() -> None:
    script = watched(disconnect_grace_ns=3 * limits.SECOND_NS)
    script.put()
    script.sent()
    script.advance(0.3)
    heard = script.now
    script.receive([2, "of a later version", 5])
    script.advance(0.1)
    script.lost()
    assert script.core.safe_until() == pytest.approx(heard + 2.0)


def test_a_probe_does_not_begin_the_silence_anew() -> None:
    script = watched(disconnect_grace_ns=3 * limits.SECOND_NS)
    asked = script.now
    script.put()
    script.advance(1.5 * script.core.config.probe_after)
    script.lost()
    assert script.core.safe_until() == pytest.approx(asked + 2.0)


def test_one_that_was_left_because_it_was_silent_may_be_broken_since_then() -> None:
    script = watched(disconnect_grace_ns=3 * limits.SECOND_NS)
    asked = script.now
    silent = script.number
    script.put()
    script.advance(2.5 * script.core.config.probe_after)
    assert silent in script.core.wanted()
    assert silent != script.number
    assert script.core.safe_until() == pytest.approx(asked + 5.0)  # nobody says that it broke
    script.core.connection_lost(silent, "reset", script.now)
    assert script.core.safe_until() == pytest.approx(asked + 2.0)


def test_an_attach_that_was_not_answered_may_have_been_carried_out_when_it_breaks() -> None:
    script = Script("h:1 h:2 h:3", session_timeout_ns=6 * limits.SECOND_NS,
                    disconnect_grace_ns=3 * limits.SECOND_NS)  # fmt: skip
    script.core.roles.watch(1.0)
    script.ready()
    first = script.number
    script.receive([2, "leader", {"leader": "n2", "endpoint": "h:2"}])
    script.advance(0.2)
    script.greet("n2", "n2")
    (attach,) = script.sent()
    assert attach[0] == 201
    asked = script.now
    script.advance(0.1)
    script.lost()
    assert first in script.core.wanted()
    assert script.core.safe_until() == pytest.approx(asked + 2.0)


def test_a_late_answer_ends_the_isolation_on_the_same_connection() -> None:
    script = watched()
    script.core.roles.serve(("g", "c"), lambda: None)
    script.core.roles.isolate()
    script.advance(1.3)
    (alive, *_) = script.sent()
    script.reply(alive, [3])
    assert not script.core.roles.isolated
    assert script.core.roles.back == {("g", "c")}


def test_who_has_no_components_is_never_isolated() -> None:
    script = Script("h:1")
    script.ready()
    script.advance(60.0)
    assert not script.core.roles.isolated


def test_the_state_in_a_word() -> None:
    script = watched()
    assert script.core.state == "connected"
    script.lost()
    assert script.core.state == "searching"
    script.core.roles.isolate()
    assert script.core.state == "isolated"
    script.core.close()
    assert script.core.state == "closed"


def test_what_comes_before_the_answer_to_the_greeting() -> None:
    script = Script()
    script.put()
    script.connected()
    hello = script.sent()[0]
    number = script.number
    script.core.data_received(number, pack_messages([[2, "leader", {}]]), script.now)
    assert script.core.link is Link.GREETING  # a notice means nothing yet
    script.core.data_received(number, pack_messages([[9, hello[1]]]), script.now)
    assert "unknown kind of message" in script.core.router.problems["h:1"]


def test_messages_behind_a_greeting_that_sends_us_on_are_dropped() -> None:
    script = Script()
    script.put()
    script.connected()
    hello = script.sent()[0]
    messages = [
        [0, hello[1], 1, hello_of("n2")],
        [2, "leader", {"leader": "n3", "endpoint": "h:3"}],
    ]
    script.core.data_received(script.number, pack_messages(messages), script.now)
    assert script.endpoint == "h:2"


def test_a_checkpoint_that_is_only_named_is_asked_for_by_its_name() -> None:
    script = Script()
    call = script.start(operations.section_ids(operations.named(b"c"), "linearizable"))
    script.greet()
    (asked,) = script.sent()  # without a session
    assert asked[3:] == [0, "c"]
    script.reply(asked, [7, [b"s"]])
    assert call.done
    assert call.subject == "c"
    assert script.core.session == 0


def test_without_a_session_a_status_is_the_sign_of_life() -> None:
    script = Script()
    call = script.start(operations.section_ids(operations.named("c"), "linearizable"))
    script.greet()
    (asked,) = script.sent()
    script.core._send_keepalive()
    (status,) = script.sent()
    script.reply(status, {"revision": 9})
    script.reply(asked, [9, []])
    assert call.done
    assert call.error is None
