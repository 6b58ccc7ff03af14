"""Redis with a replica and three Sentinels, as a hospital would run it, to fail over for real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.orthanc import wait_until
from tests.ports import free_port

MASTER = "pleura"
_FAST = f"""
sentinel down-after-milliseconds {MASTER} 2000
sentinel failover-timeout {MASTER} 4000
sentinel parallel-syncs {MASTER} 1
"""


@dataclass
class Sentinels:
    """The servers. ``login`` are options of a client of Redis, ``secret`` is the password of Redis and Sentinels."""

    folder: Path
    host: str = "127.0.0.1"
    prefix: Sequence[str] = ()
    tls: Sequence[str] = ()
    secret: str = ""
    login: dict[str, object] = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, ending: ExitStack) -> None:
        """Start everything, until ``ending`` ends."""
        ending.callback(self._end)
        first, second = free_port(), free_port()
        for port in (first, second):
            replica = [] if port == first else ["--replicaof", self.host, str(first)]
            text = f"save ''\nappendonly no\nreplica-announce-ip {self.host}\n" + self._secret("masterauth")
            self._serve(port, "redis", text, *replica)
        wait_until(lambda: self._role(first) == "master" and self._role(second) == "slave", "a replica", pause=0.1)
        watch = f"sentinel announce-ip {self.host}\nsentinel monitor {MASTER} {self.host} {first} 2\n{_FAST}"
        if self.secret:
            watch += f"sentinel auth-pass {MASTER} {self.secret}\nsentinel sentinel-pass {self.secret}\n"
        self.ports = [free_port() for _ in range(3)]
        for port in self.ports:
            self._serve(port, "sentinel", watch, "--sentinel")
        wait_until(self._know_each_other, "three Sentinels", pause=0.1)

    def url(self, query: str = "") -> str:
        """What Celery is told, but for the passwords."""
        parts = ";".join(f"sentinel://{self.host}:{port}" for port in self.ports)
        return f"{parts}/0?master_name={MASTER}{query}"

    def primary(self) -> int:
        """The port of the Redis that Sentinel says is the primary."""
        found: Any = self._client(self.ports[0]).sentinel_get_master_addr_by_name(MASTER)
        return int(found[1])

    def kill_primary(self) -> None:
        """Kill -9; another one becomes the primary."""
        killed = self.primary()
        self.servers[killed].kill()
        self.servers.pop(killed).wait(30)

        def failed_over() -> bool:
            port = self.primary()
            return port != killed and self._role(port) == "master"

        wait_until(failed_over, "a failover", 60, 0.2)

    def _serve(self, port: int, name: str, text: str, *options: str) -> None:
        path = self.folder / f"{name}-{port}.conf"  # Sentinel writes what it learns into it
        where = f"port {port}\n" if not self.tls else f"port 0\ntls-port {port}\n" + "\n".join(self.tls) + "\n"
        path.write_text(
            f"bind {self.host}\nprotected-mode no\n{where}dir {self.folder}\n{self._secret('requirepass')}{text}"
        )
        command = [*self.prefix, "redis-server", str(path), *options]
        self.servers[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: self._answers(port), name, pause=0.05)

    def _secret(self, key: str) -> str:
        return f"{key} {self.secret}\n" if self.secret else ""

    def _client(self, port: int) -> Redis:
        secret = {"password": self.secret} if self.secret else {}
        return Redis(self.host, port, socket_timeout=20, **secret, **self.login)  # type: ignore[arg-type]

    def _answers(self, port: int) -> bool:
        try:
            return bool(self._client(port).ping())
        except (RedisError, OSError):
            return False

    def _role(self, port: int) -> str:
        try:
            found = self._client(port).info("replication")
        except (RedisError, OSError):
            return ""
        link = found.get("master_link_status", "up")
        return str(found["role"]) if link == "up" else ""

    def _know_each_other(self) -> bool:
        states: list[Any] = [self._client(port).sentinel_master(MASTER) for port in self.ports]
        return all(one["num-other-sentinels"] == 2 and one["num-slaves"] == 1 for one in states)

    def _end(self) -> None:
        for process in self.servers.values():
            process.kill()
            process.wait(30)


@contextmanager
def sentinels(folder: Path, **options: object) -> Iterator[Sentinels]:
    """The servers until the end of the block."""
    with ExitStack() as ending:
        servers = Sentinels(folder, **options)  # type: ignore[arg-type]
        servers.start(ending)
        yield servers
