"""Two hosts, one of which is cut off, hangs or dies: ``python -P -m tests.campaigns.hosts --seed 1 --events 24``.

Each host is a network namespace with a host name of its own and runs a whole node: listener, worker, delivery worker,
scheduler and page. Both share one PostgreSQL, one Redis that three Sentinels watch over, and one object folder.
Those, a destination, a mail server and the modalities are in the namespace of the machine. At random moments a host
loses its network, or only its way to the database, to Redis, to the destination or to the mail server: packets are
lost, without a word of the kernel. Or it hangs (SIGSTOP), or all of it dies (SIGKILL) and starts again; or Redis dies
and a replica takes its place. Then peace returns, and it is counted: each image that was answered 0x0000 has its
results at the destination once, its notification came once, and nothing waits.

What this cannot show: a file system that loses a host. Both hosts have the folder from one kernel, whose locks a cut
does not touch. It needs root and iproute2; where namespaces cannot be made it is skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, cast

from aiosmtpd.controller import Controller

from tests.campaigns.chaos import sequence
from tests.campaigns.command import Say, SkippedError, parser_of, run_campaign
from tests.campaigns.destination import Destination
from tests.campaigns.images import Image, image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.parts import Broker, Database, Postgresql, signal_all
from tests.campaigns.whole_node import WholeNode, settings_text, wait_and_count
from tests.integration.pleura import Pleura, descendants, handwritten_network
from tests.orthanc import wait_until
from tests.ports import free_port
from tests.sentinel import Sentinels

_PORT = 11112
_SENDERS = 4
_NOBODY = "02:00:00:00:00:fe"  # a link-layer address that no machine has: what is sent there is lost
_SERVERS = {"database": 10, "redis": 11, "destination": 12, "mail": 13}


def _ip(*arguments: object) -> None:
    done = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"ip {' '.join(map(str, arguments))}: {done.stderr.strip()}")


class Network:
    """A bridge of this machine with an address for each server, and two namespaces at it."""

    def __init__(self, ending: ExitStack) -> None:
        """Make it, until ``ending`` ends.

        Raises:
            SkippedError: this machine makes no namespaces, or only for root.
        """
        if os.geteuid() or shutil.which("ip") is None or shutil.which("nsenter") is None:
            raise SkippedError("network namespaces need root, ip and nsenter")
        self.number = os.getpid() % 200 + 20
        self._bridge = f"plbr{self.number}"
        _ip("link", "add", self._bridge, "type", "bridge")
        ending.callback(self._remove, "link", "del", self._bridge)
        for last in _SERVERS.values():
            _ip("address", "add", f"{self.address(last)}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for last, name in enumerate("ab", 1):
            self._join(name, last, ending)

    def address(self, last: int) -> str:
        """An address of this network."""
        return f"10.213.{self.number}.{last}"

    def server(self, name: str) -> str:
        """The address of a server."""
        return self.address(_SERVERS[name])

    def namespace(self, host: str) -> str:
        """The name of a host's namespace."""
        return f"pl{self.number}{host}"

    def enter(self, host: str) -> tuple[str, ...]:
        """A command that runs another one on a host, under its host name."""
        named = f'echo host-{host} > /proc/sys/kernel/hostname; exec "$0" "$@"'
        return "nsenter", f"--net=/run/netns/{self.namespace(host)}", "unshare", "--uts", "sh", "-c", named

    def cut(self, host: str, server: str | None) -> None:
        """Lose what a host sends to a server; all that it sends and gets where ``server`` is None."""
        if server is None:
            _ip("link", "set", self._port(host), "down")
        else:
            lost = ("lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
            _ip("-n", self.namespace(host), "neigh", "replace", self.server(server), *lost)

    def reconnect(self, host: str, server: str | None) -> None:
        """End a cut."""
        if server is None:
            _ip("link", "set", self._port(host), "up")
        else:
            _ip("-n", self.namespace(host), "neigh", "del", self.server(server), "dev", "eth0")

    def _port(self, host: str) -> str:
        return f"plv{self.number}{host}"

    def _join(self, host: str, last: int, ending: ExitStack) -> None:
        space, port = self.namespace(host), self._port(host)
        _ip("netns", "add", space)
        ending.callback(self._remove, "netns", "del", space)
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        # With the namespace the kernel would remove it, too, but some time later, when its name is wanted again.
        ending.callback(self._remove, "link", "del", port)
        _ip("link", "set", port, "master", self._bridge, "up")
        _ip("-n", space, "address", "add", f"{self.address(last)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    @staticmethod
    def _remove(*arguments: str) -> None:
        with suppress(SkippedError):
            _ip(*arguments)


@dataclass
class Mailbox:
    """A mail server that counts: how often a message with a Message-ID came. A node makes that of what it tells."""

    counts: Counter[str] = field(default_factory=Counter)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a message."""
        del server, session
        lines = envelope.content.decode(errors="replace").splitlines()
        self.counts[next(line for line in lines if line.lower().startswith("message-id:"))] += 1
        return "250 taken"


@dataclass
class TwoHosts:
    """The hosts, and what they share."""

    network: Network
    hosts: dict[str, Pleura]
    whole: WholeNode
    sentinels: Sentinels
    mailbox: Mailbox
    threads: list[threading.Thread] = field(default_factory=list)

    def cut(self, host: str, server: str | None, seconds: float) -> None:
        """Cut a host off for so long."""
        self.network.cut(host, server)
        time.sleep(seconds)
        self.network.reconnect(host, server)

    def hang(self, host: str, seconds: float) -> None:
        """Stop every process of a host for so long."""
        top = self.hosts[host].process
        assert top is not None
        processes = [top.pid, *descendants(top.pid)]
        signal_all(processes, signal.SIGSTOP)
        time.sleep(seconds)
        signal_all(processes, signal.SIGCONT)

    def lose(self, host: str, seconds: float) -> None:
        """Kill -9 every process of a host, and start it again after so long."""
        self.hosts[host].kill_everything()
        time.sleep(seconds)
        self.hosts[host].start()


Event = Callable[[TwoHosts, str, float], None]
EVENTS: dict[str, Event] = {
    "cut off": lambda two, host, seconds: two.cut(host, None, seconds),
    **{
        f"cut off from {server}": lambda two, host, seconds, server=server: two.cut(host, server, seconds)  # type: ignore[misc]
        for server in _SERVERS
    },
    "hang": lambda two, host, seconds: two.hang(host, seconds),
    "kill -9": lambda two, host, seconds: two.lose(host, seconds / 4),
}
REDIS = "Redis fails over"


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Both hosts and their servers until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:
        network = Network(ending)
        destination = Destination(folder / "pacs", network.server("destination"))
        destination.start()
        ending.callback(destination.kill)
        mailbox, mail_port = Mailbox(), free_port()
        mail: Any = Controller(mailbox, hostname=network.server("mail"), port=mail_port, ready_timeout=60)
        mail.start()
        ending.callback(mail.stop)
        database = _database(folder, network)
        ending.callback(database.stop)
        (folder / "redis").mkdir()
        sentinels = Sentinels(folder / "redis", network.server("redis"))
        sentinels.start(ending)
        url = database.url.partition("?")[0].replace("@/", f"@{network.server('database')}/")
        urls: dict[str, str | None] = {"database": url, "broker": sentinels.url()}
        models = handwritten_network(folder / "models")
        hosts = {}
        for last, name in enumerate("ab", 1):
            place = folder / name
            place.mkdir()
            config = place / "pleura.toml"
            config.write_text(_settings(models, folder / "store", network, last, destination.port, mail_port, urls))
            prefix, address = network.enter(name), network.address(last)
            hosts[name] = Pleura(place, _PORT, config, {}, host=address, prefix=prefix)
            ending.callback(hosts[name].stop)
        for host in hosts.values():
            host.start()
        shared = cast(Database, database), cast(Broker, sentinels)  # nobody stops those here
        whole = WholeNode(hosts["a"], folder / "store", *shared, destination)
        yield TwoHosts(network, hosts, whole, sentinels, mailbox)


def _database(folder: Path, network: Network) -> Postgresql:
    rules = folder / "pg_hba.conf"
    rules.write_text("local all all trust\nhost all all samenet trust\n")
    rules.chmod(0o644)
    listening = f"listen_addresses={network.server('database')}"
    return Postgresql(folder / "postgresql", options=("-c", listening, "-c", f"hba_file={rules}"))


def _settings(
    models: str, store: Path, network: Network, last: int, port: int, mail_port: int, urls: dict[str, str | None]
) -> str:
    mail = {"host": network.server("mail"), "port": mail_port, "security": "none", "timeout_seconds": 3}
    sections: dict[str, dict[str, Any]] = {
        "listener": {"host": network.address(last)},
        "destination": {"host": network.server("destination")},
        "admin": {"enabled": True, "port": 8080},
        "triage": {"backfill_days": 0},
        "notifications": {"attempts": 1000, "maximum_age_hours": 1e6},  # our studies are as old as their phantom
        "notifications.email": {"enabled": True, "sender": "n@h.example", "recipients": ["r@h.example"], **mail},
    }
    peer = sections.pop("destination") | {"port": port, "associations": 2}
    text = settings_text(models, store, _PORT, peer, urls, **sections)
    return text + '[[listener.peers]]\nae_title = "SENDER"\n'


def run(
    folder: Path,
    seed: int,
    events: int,
    say: Say,
    *,
    longest: float = 60,
    pause: float = 4,
    finishing_seconds: float = 300,
) -> Outcome:
    """Run a campaign; ``longest``: seconds of a cut, at most; ``pause``: between two events."""
    random = Random(f"hosts {seed}")
    outcome = Outcome("hosts", seed)
    drawn = sequence(random, [*sorted(EVENTS), REDIS], events)
    with two_hosts(folder) as two:
        addresses = tuple(host.host for host in two.hosts.values())
        images = (image(seed, number) for number in count())
        modalities = Modalities([_PORT], _paced(images), _SENDERS, hosts=addresses, patience=25)
        modalities.start()
        for number, name in enumerate(drawn, 1):
            time.sleep(random.uniform(0.5, pause))
            host, seconds = random.choice("ab"), random.uniform(1, longest)
            say(f"{number}/{events} {name}, host {host}, {seconds:.0f} s ({len(modalities.accepted)} accepted)")
            if name == REDIS:
                # Where a replica is left.
                if len(two.sentinels.servers) == _SERVERS_OF_REDIS:
                    two.sentinels.kill_primary()
            else:
                EVENTS[name](two, host, seconds)
        modalities.finish(180, stop=True)
        _check(two, modalities, outcome, drawn, finishing_seconds, say)
    return outcome


def _paced(images: Iterator[Image]) -> Iterator[Image]:
    """One image a second: what waits must be worked off by two cores, on which two hosts start again and again."""
    due = time.monotonic()
    for each in images:
        time.sleep(max(due - time.monotonic(), 0))
        due = time.monotonic() + 1
        yield each


_SERVERS_OF_REDIS = 5  # a primary, a replica, three Sentinels


def _check(
    two: TwoHosts, modalities: Modalities, outcome: Outcome, drawn: list[str], finishing_seconds: float, say: Say
) -> None:
    patients = [each.patient for each in modalities.accepted]
    say(f"peace: {len(patients)} accepted, {two.whole.unfinished()}")
    held, outcome.faults = wait_and_count(two.whole, patients, finishing_seconds)
    with suppress(AssertionError):
        wait_until(lambda: len(two.mailbox.counts) >= len(patients), "all notifications", 60, 0.5)
    mails = two.mailbox.counts
    if len(mails) != len(patients):
        outcome.faults.append(f"{len(mails)} notifications came for {len(patients)} studies")
    twice = {key: times for key, times in mails.items() if times > 1}
    if twice:
        outcome.faults.append(f"{len(twice)} notifications came more than once")
    logs = "".join(host.log_file.read_text(errors="replace") for host in two.hosts.values())
    kinds = Counter(drawn)
    outcome.figures = {
        "cut off": sum(number for name, number in kinds.items() if name.startswith("cut off")),
        "hung": kinds["hang"],
        "killed -9": kinds["kill -9"],
        "images accepted": len(patients),
        "sent again by modalities": modalities.failures(),
        "objects sent again": held.sent_again,
        "notifications": sum(mails.values()),
        "schedulers that took over": logs.count("this scheduler acts"),
        "work refused because the claim was lost": logs.count("was taken from this"),
    }
    # What listeners, workers and schedulers that have died leave behind is removed by those that live.
    locks = two.whole.store
    with suppress(AssertionError):
        wait_until(lambda: len(list(locks.glob("*.lock"))) <= _LOCKS, "the lock files of the dead to go", 40, 1)
    left = sorted(path.name for path in locks.glob("*.lock"))
    outcome.faults += [f"{len(left)} lock files are left: {left}"] if len(left) > _LOCKS else []


_LOCKS = 2 * 5  # of each host: two of its listener, two workers' and the scheduler's


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, default=24, help="so many cuts, hangs and kills (default 24)")
    parser.add_argument("--longest", type=float, default=60, help="seconds of a cut or hang, at most (default 60)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whatever ends it, no host goes on without it
    run_campaign(given, lambda folder, say: run(folder / "run", given.seed, given.events, say, longest=given.longest))


if __name__ == "__main__":
    main()
