"""Who is let in, and who has to go: counting, without sockets."""

from __future__ import annotations

from raftckpt.net.doors import Doors, Guest


def enter(doors: Doors, address: str = "10.0.0.1", at: float = 0.0) -> Guest:
    guest = doors.enter(address, f"{address}:1", at)
    assert isinstance(guest, Guest)
    return guest


def known(guest: Guest) -> Guest:
    guest.known = lambda: True
    return guest


def test_one_address_cannot_take_all_places() -> None:
    doors = Doors(4, 3, 2)
    first = known(enter(doors))
    for _ in range(2):
        known(enter(doors))
    assert doors.enter("10.0.0.1", "", 0.0) == "there are 3 connections from 10.0.0.1"
    known(enter(doors, "10.0.0.2"))
    assert doors.enter("10.0.0.3", "", 0.0) == "there are 4 connections"
    doors.left(first)
    doors.left(first)  # said twice, counted once
    known(enter(doors, "10.0.0.3"))
    assert doors.enter("10.0.0.1", "", 0.0) == "there are 4 connections"


def test_who_says_nothing_makes_room_for_who_comes() -> None:
    """However many connections stay silent, the next one has its chance."""
    doors = Doors(8, 8, 4)
    turned_out = []

    def silent(number: int) -> None:
        guest = enter(doors)

        guest.turn_out = lambda why: turned_out.append(number)

    for number in range(4):
        silent(number)
    assert turned_out == []
    for number in range(4, 20):
        silent(number)
        assert turned_out == list(range(number - 3))
    assert len(doors.guests) == 4


def test_only_strangers_make_room() -> None:
    doors = Doors(8, 8, 4)
    for _ in range(8):
        guest = known(enter(doors))
        guest.turn_out = lambda why: 1 / 0
    assert len(doors.guests) == 8
    assert doors.enter("10.0.0.2", "", 0.0) == "there are 8 connections"


def test_an_address_that_is_full_of_strangers_makes_room_at_its_own_cost() -> None:
    doors = Doors(8, 2, 4)
    turned_out: list[str] = []
    for name in ("10.0.0.1", "10.0.0.2", "10.0.0.2"):
        enter(doors, name).turn_out = lambda why, name=name: turned_out.append(name)
    enter(doors, "10.0.0.2")
    assert turned_out == ["10.0.0.2"]
    assert len(doors.guests) == 3


def test_who_sends_the_most_strangers_pays_for_all() -> None:
    doors = Doors(100, 100, 8)
    turned_out: list[str] = []
    for number in range(40):
        name = "10.0.0.2" if number == 3 else "10.0.0.1"
        enter(doors, name).turn_out = lambda why, name=name: turned_out.append(name)
    assert set(turned_out) == {"10.0.0.1"}
    assert len(doors.guests) == 8
