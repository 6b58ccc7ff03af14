"""Who makes room for whom."""

from __future__ import annotations

from node.hl7.connection_limits import ConnectionState, Limits, connection_to_close

LIMITS = Limits(waiting=3, active=4, per_address=2)


def waiting(address: str, since: float) -> ConnectionState:
    return ConnectionState(address, since)


def has_sent(address: str, since: float, *, busy: bool = False) -> ConnectionState:
    return ConnectionState(address, since, has_sent=True, busy=busy)


def test_while_there_is_room_nobody_goes() -> None:
    places = [waiting("a", 1), waiting("a", 2), waiting("a", 3), has_sent("a", 0), has_sent("a", 1), has_sent("b", 2)]
    assert all(connection_to_close(places, newest, LIMITS) is None for newest in places)


def test_the_oldest_of_the_address_that_waits_most_goes() -> None:
    places = [waiting("b", 0), waiting("a", 1), waiting("a", 2), waiting("b", 3), waiting("a", 4)]
    assert connection_to_close(places, places[-1], LIMITS) is places[1]


def test_who_waits_takes_no_place_from_who_has_spoken() -> None:
    places = [*[has_sent(address, 0) for address in "abcd"], *[waiting("a", number) for number in (1, 2, 3, 4)]]
    assert connection_to_close(places, places[-1], LIMITS) is places[4]


def test_one_address_makes_room_for_itself() -> None:
    places = [has_sent("b", 0), has_sent("a", 2), has_sent("a", 1), has_sent("a", 3)]
    assert connection_to_close(places, places[-1], LIMITS) is places[2]


def test_the_longest_silent_one_goes_unless_it_is_busy() -> None:
    places = [has_sent("a", 0, busy=True), has_sent("b", 1), has_sent("c", 2), has_sent("d", 3), has_sent("e", 4)]
    assert connection_to_close(places, places[-1], LIMITS) is places[1]


def test_where_all_others_are_busy_the_newest_goes() -> None:
    places = [*[has_sent(address, 0, busy=True) for address in "abcd"], has_sent("e", 4)]
    assert connection_to_close(places, places[-1], LIMITS) is places[-1]
