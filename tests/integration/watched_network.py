"""Runs a command in a network of its own that leads nowhere, and writes down whatever it tries to reach.

``unshare --net --mount python -m tests.integration.watched_network REPORT COMMAND…`` (root). All that is not loopback
goes to an interface that this process reads: so each packet is seen, with any protocol, of any child. Names are asked
of a server here, which knows none. REPORT gets one line for each attempt: ``udp 192.0.2.7:53`` or ``name example.org``.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_NAME = "outside"
_ROUTES = (
    "link set lo up",
    f"link set {_NAME} up",
    f"addr add 192.0.2.1/32 dev {_NAME}",
    f"route add default dev {_NAME}",
    f"-6 addr add 2001:db8::1/128 dev {_NAME} nodad",
    f"-6 route add default dev {_NAME}",
)
_PROTOCOLS = {6: "tcp", 17: "udp"}
_OF_THE_KERNEL = {0, 58}  # router solicitations and multicast listener reports: hop-by-hop options, ICMPv6
_LAST_ADDRESS = "192.0.2.254"
_LAST = f"udp {_LAST_ADDRESS}:9"
_NAME_IS_UNKNOWN = 0x8183  # response, recursion desired and available, NXDOMAIN (RFC 1035 4.1.1)


def open_outside() -> int:
    """The way out of this network namespace: a descriptor that gives each packet sent there."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", _NAME.encode(), _IFF_TUN | _IFF_NO_PI))
    for words in _ROUTES:
        subprocess.run(["ip", *words.split()], check=True)
    return descriptor


def destination(packet: bytes) -> str | None:
    """Whither an IP packet was to go, as ``protocol address:port``; None for what the kernel sends by itself."""
    if packet[0] >> 4 == 4:
        header, protocol, address = (packet[0] & 15) * 4, packet[9], packet[16:20]
    else:
        header, protocol, address = 40, packet[6], packet[24:40]
        if protocol in _OF_THE_KERNEL:
            return None
    port = int.from_bytes(packet[header + 2 : header + 4], "big")
    return f"{_PROTOCOLS.get(protocol, protocol)} {ipaddress.ip_address(address)}:{port}"


def asked_name(query: bytes) -> str:
    """The name in the question of a DNS query (RFC 1035 4.1.2)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(labels)


def watch_packets(outside: int, report: Path) -> None:
    """Write down each packet, until the one comes that this process sends when the command has ended."""
    while (found := destination(os.read(outside, 65536))) != _LAST:
        if found is not None:
            _note(report, found)


def _send_the_last() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.sendto(b"", (_LAST_ADDRESS, 9))


def watch_names(server: socket.socket, report: Path) -> None:
    """Write down each name that is looked up, until the process ends."""
    while True:
        query, address = server.recvfrom(4096)
        _note(report, f"name {asked_name(query)}")
        server.sendto(query[:2] + struct.pack("!H", _NAME_IS_UNKNOWN) + query[4:6] + bytes(6) + query[12:], address)


def _note(report: Path, line: str) -> None:
    with report.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _be_the_name_server(report: Path) -> socket.socket:
    resolver = report.with_name("resolv.conf")
    resolver.write_text("nameserver 127.0.0.1\n", encoding="utf-8")
    subprocess.run(["mount", "--bind", str(resolver), "/etc/resolv.conf"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server


def main(report: Path, command: list[str]) -> int:
    """Run ``command`` under watch; its exit status."""
    report.touch()
    outside = open_outside()
    names = _be_the_name_server(report)
    packets = threading.Thread(target=watch_packets, args=(outside, report), daemon=True)
    packets.start()
    threading.Thread(target=watch_names, args=(names, report), daemon=True).start()
    status = subprocess.run(command, check=False).returncode
    _send_the_last()  # packets wait in a queue: those of the command are all read when this one is
    packets.join(30)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
