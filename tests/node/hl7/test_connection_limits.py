"""Who makes room for whom."""

from __future__ import annotations

from node.hl7.connection_limits import Limits, Place, who_makes_room

LIMITS = Limits(waiting=3, proven=4, per_address=2)


def waiting(address: str, since: float) -> Place:
    return Place(address, since)


def proven(address: str, since: float, *, busy: bool = False) -> Place:
    return Place(address, since, proven=True, busy=busy)


def test_while_there_is_room_nobody_goes() -> None:
    places = [waiting("a", 1), waiting("a", 2), waiting("a", 3), proven("a", 0), proven("a", 1), proven("b", 2)]
    assert all(who_makes_room(places, newest, LIMITS) is None for newest in places)


def test_the_oldest_of_the_address_that_waits_most_goes() -> None:
    places = [waiting("b", 0), waiting("a", 1), waiting("a", 2), waiting("b", 3), waiting("a", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[1]


def test_who_waits_takes_no_place_from_who_has_spoken() -> None:
    places = [*[proven(address, 0) for address in "abcd"], *[waiting("a", number) for number in (1, 2, 3, 4)]]
    assert who_makes_room(places, places[-1], LIMITS) is places[4]


def test_one_address_makes_room_for_itself() -> None:
    places = [proven("b", 0), proven("a", 2), proven("a", 1), proven("a", 3)]
    assert who_makes_room(places, places[-1], LIMITS) is places[2]


def test_the_longest_silent_one_goes_unless_it_is_busy() -> None:
    places = [proven("a", 0, busy=True), proven("b", 1), proven("c", 2), proven("d", 3), proven("e", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[1]


def test_where_all_others_are_busy_the_newest_goes() -> None:
    places = [*[proven(address, 0, busy=True) for address in "abcd"], proven("e", 4)]
    assert who_makes_room(places, places[-1], LIMITS) is places[-1]
