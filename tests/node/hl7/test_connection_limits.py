"""Who makes room for whom."""

from __future__ import annotations

from node.hl7.connection_limits import Limits, WorkerId, who_makes_room

LIMITS = Limits(waiting=3, verified=4, per_address=2)


def waiting(address: str, since: float) -> WorkerId:
    return WorkerId(address, since)


def verified(address: str, since: float, *, busy: bool = False) -> WorkerId:
    return WorkerId(address, since, verified=True, busy=busy)


def test_while_there_is_room_nobody_goes() -> None:
    places = [waiting("a", 1), waiting("a", 2), waiting("a", 3), verified("a", 0), verified("a", 1), verified("b", 2)]
    assert all(who_makes_room(places, newest, LIMITS) is None for newest in places)


def test_the_oldest_of_the_address_that_waits_most_goes() -> None:
    places = [waiting("b", 0), waiting("a", 1), waiting("a", 2), waiting("b", 3), waiting("a", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[1]


def test_who_waits_takes_no_place_from_who_has_spoken() -> None:
    places = [*[verified(address, 0) for address in "abcd"], *[waiting("a", number) for number in (1, 2, 3, 4)]]
    assert who_makes_room(places, places[-1], LIMITS) is places[4]


def test_one_address_makes_room_for_itself() -> None:
    places = [verified("b", 0), verified("a", 2), verified("a", 1), verified("a", 3)]
    assert who_makes_room(places, places[-1], LIMITS) is places[2]


def test_the_longest_silent_one_goes_unless_it_is_busy() -> None:
    places = [verified("a", 0, busy=True), verified("b", 1), verified("c", 2), verified("d", 3), verified("e", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[1]


def test_where_all_others_are_busy_the_newest_goes() -> None:
    places = [*[verified(address, 0, busy=True) for address in "abcd"], verified("e", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[-1]
