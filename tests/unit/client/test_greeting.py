"""The greeting that all peers share, and whose cluster it is."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.client.calls import Call, Needs
from raftckpt.client.greeting import (
    GREETING_ID,
    GreetingRefused,
    Introduction,
    OurFounding,
    Welcome,
    welcome_in,
)
from raftckpt.client.link import Contact
from raftckpt.protocol.frames import FrameDecoder, FrameError, pack_messages
from tests.messages import unpack_messages

OURS = {"n1": "h:1", "n2": "h:2", "n3": "h:3"}
ADDRESSES = sorted(OURS.values())


def told(**more: Any) -> dict[str, Any]:
    return {"version": 1, "node": "n1", "leader": "n2", "endpoints": OURS, "founding": "f", **more}


def welcome(founding: str = "f", **more: Any) -> Welcome:
    found = welcome_in([0, GREETING_ID, 1, told(founding=founding, **more)])
    assert found is not None
    return found


def test_a_contact_greets_before_anything_else() -> None:
    contact = Contact(3, "h:1")
    contact.send([121, 2])
    assert contact.data_to_send() == b""  # it is not up
    assert contact.receive(b"early") == []
    contact.greet(Introduction("me", "secret"))
    (body,) = FrameDecoder().feed(contact.data_to_send())
    assert unpack_messages(body) == [[200, GREETING_ID, [1], "me", "secret"], [121, 2]]
    early, answer, late = [2, "leader", {}], [0, GREETING_ID, 1, told()], [0, 2, 1, "x"]
    assert contact.receive(pack_messages([early, answer, late])) == [late]
    assert contact.welcome == welcome()
    assert contact.receive(pack_messages([early])) == [early]


def test_what_a_welcome_tells() -> None:
    assert (welcome().leads, welcome().leader_at) == (False, "h:2")
    assert welcome(leader="n1").leads
    assert welcome(leader=None).leader_at is None
    assert welcome(leader="n9").leader_at is None


@pytest.mark.parametrize(
    "message", [[1, 1], [0, 1, 1, told(version=9)], [0, 1, 1, told(node=5)]], ids=str
)
def test_what_is_no_welcome(message: list[Any]) -> None:
    with pytest.raises(FrameError):
        welcome_in(message)


def test_a_refused_greeting_says_why() -> None:
    with pytest.raises(GreetingRefused) as refused:
        welcome_in([0, GREETING_ID, 31, ["token", None, None], True])
    error = refused.value.error(Call("connect", Needs.ANY, None))
    assert (refused.value.code, error.reason, error.definite) == (31, "token", True)
    assert "connect" in str(error)


# --- our cluster, and others of its name


def test_the_founding_met_first_is_ours() -> None:
    ours = OurFounding()
    assert ours.stranger("h:1", welcome()) is None
    assert ours.id == "f"
    why = ours.stranger("h:2", welcome("other"))
    assert why is not None
    assert "(other)" in why
    assert "(f)" in why
    assert ours.stranger("h:3", welcome("")) is None  # it does not say


def test_it_is_gone_when_everybody_is_a_stranger() -> None:
    ours = OurFounding("f")
    for address in ADDRESSES:
        assert not ours.gone(ADDRESSES)
        ours.stranger(address, welcome("other"))
    assert ours.gone(ADDRESSES)


def test_it_is_gone_when_most_are_strangers_and_nobody_else_is_there() -> None:
    ours = OurFounding()
    ours.stranger("h:1", welcome())
    ours.stranger("h:1", welcome("other"))
    ours.failed("h:2")
    ours.failed("h:3")
    assert not ours.gone(ADDRESSES)  # one old address says nothing about the others
    ours.stranger("h:2", welcome("other"))
    assert ours.gone(ADDRESSES)
    ours.stranger("h:3", welcome())  # here is one of ours
    assert not ours.gone(ADDRESSES)
    ours.failed("h:3")
    assert ours.gone(ADDRESSES)


def test_strangers_at_addresses_that_were_never_ours_prove_nothing() -> None:
    ours = OurFounding()
    ours.stranger("h:1", welcome())
    others = ["x:1", "x:2", "x:3", "x:4"]
    for address in others:
        ours.stranger(address, welcome("other"))
    for address in ADDRESSES:
        ours.failed(address)
    assert not ours.gone([*ADDRESSES, *others])


def test_of_a_cluster_whose_replicas_are_unknown_all_must_be_strangers() -> None:
    ours = OurFounding("f")  # as a tracker, whose client met it
    ours.stranger("h:1", welcome("other"))
    ours.stranger("h:2", welcome("other"))
    ours.failed("h:3")
    assert not ours.gone(ADDRESSES)
