"""Conversations that no standard knows: A-ASSOCIATE-RQ, P-DATA and the rest, damaged, out of turn and cut off."""

from __future__ import annotations

import socket
import struct
from random import Random

from tests.fuzz.peer import CR, EXPLICIT, VERIFICATION, associate_rq, p_data, pdu, store_rq

_CONTEXTS = ((CR, EXPLICIT), (VERIFICATION, EXPLICIT))


def conversation(random: Random) -> list[bytes]:
    """What a peer sends, one after the other; the same again from the same generator state."""
    title = random.choice(("PEER", "", "A\nB", "\x1b[2J", "\xff" * 16, "X" * 16))
    request = associate_rq(_CONTEXTS, calling=title, maximum=random.choice((0, 1, 16384, 0xFFFFFFFF)))
    steps = [request if random.random() < 0.7 else _damaged(random, request)]
    steps += [_step(random) for _ in range(random.randrange(5))]
    if random.random() < 0.2:
        random.shuffle(steps)
    if random.random() < 0.2:
        steps[-1] = steps[-1][: random.randrange(len(steps[-1]) + 1)]
    return steps


def _step(random: Random) -> bytes:
    kind = random.randrange(9)
    if kind == 0:
        return p_data(
            random.choice((1, 1, 3, 5, 0)), random.choice((0, 1, 2, 3)), random.randbytes(random.randrange(300))
        )
    if kind == 1:
        return p_data(1, 1, _damaged(random, store_rq(CR, "1.2.3"))) + p_data(1, 0, bytes(100))
    if kind == 2:
        return p_data(1, 1, store_rq(CR, "1.2.3"), piece=random.choice((1, 7, 60)))
    if kind == 3:
        return _damaged(random, p_data(1, 1, store_rq(CR, "1.2.3")) + p_data(1, 0, bytes(1000), 100))
    if kind == 4:
        return pdu(random.randrange(256), random.randbytes(random.randrange(80)))
    if kind == 5:
        return struct.pack(">BBL", random.randrange(1, 8), 0, random.choice((0, 1, 0xFFFF, 0xFFFFFFFF)))
    if kind == 6:
        return pdu(5, bytes(4))
    if kind == 7:
        return pdu(7, bytes((0, 0, random.randrange(4), random.randrange(8))))
    return random.randbytes(random.randrange(1, 100))


def _damaged(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def hold(port: int, steps: list[bytes], seconds: float = 0.02) -> None:
    """Send the steps, reading what comes, and close. What the listener does with the connection is its own affair."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.settimeout(seconds)
        for step in steps:
            try:
                connection.sendall(step)
                connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
