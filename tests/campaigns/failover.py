"""PostgreSQL fails over under load: ``python -P -m tests.campaigns.failover --seed 1 --failovers 5``.

A node has a primary and a standby in ``database.url``, two hosts by their ports. While modalities send without a pause,
the primary dies (kill -9), hangs (SIGSTOP, and dies later) or is stopped in good order, the standby is promoted, and
what was the primary comes back as the new standby. Then peace returns, and what counts is counted at the destination.

With ``--asynchronous`` commits do not wait for the standby, and it receives nothing in the second before the primary
dies, as over a slow line. What was answered 0x0000 in that second is lost, which is counted and no fault: it is what
docs/scaling.md warns of.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from tests import postgres
from tests.campaigns.command import Say, parser_of, run_campaign
from tests.campaigns.images import image
from tests.campaigns.modality import Modalities
from tests.campaigns.outcome import Outcome
from tests.campaigns.parts import Postgresql, signal_all
from tests.campaigns.whole_node import wait_and_count, whole_node
from tests.integration.pleura import command_line, descendants
from tests.orthanc import wait_until
from tests.ports import free_port

_SENDERS = 4
_AFTERWARDS = 6
WAYS = ("killed", "hung", "stopped")


class _Server:
    """One of the two servers, on a port and a socket of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.folder, self.port = folder, free_port()
        self._options = (
            *("-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
            # A standby that has lost its primary looks for it each second, and not each five.
            *("-c", "wal_retrieve_retry_interval=1s"),
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def admin(self) -> postgres.PostgresServer:
        return postgres.PostgresServer(self.folder, self.port)

    def make(self) -> None:
        self.process = postgres.start(self.folder, *self._options, port=self.port)

    def follow(self, primary: _Server) -> None:
        """Become the standby of ``primary``, from a copy of it that is made now."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        copy = [postgres.programs() / "pg_basebackup", "-D", self.folder / "data", "-R", "-c", "fast"]
        copy += ["-h", primary.folder, "-p", primary.port, "-U", "postgres", "-d", f"application_name={self.port}"]
        shutil.chown(self.folder, "postgres", "postgres")
        subprocess.run([*postgres.become(), *map(str, copy)], check=True, cwd=self.folder, capture_output=True)
        self.process = postgres.start_again(self.folder, *self._options, port=self.port)

    def processes(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid, *descendants(self.process.pid)]

    def kill(self) -> None:
        assert self.process is not None
        signal_all(self.processes(), signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)

    def says(self, question: str) -> str:
        engine = create_engine(self.admin.url("postgres"))
        try:
            with engine.connect() as connection:
                return str(connection.execute(text(question)).scalar())
        except DBAPIError:
            return ""
        finally:
            engine.dispose()


class Pair(Postgresql):
    """A primary and a standby that change places."""

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        folder.mkdir(parents=True)
        self.synchronous = synchronous
        self.primary, self.standby = _Server(folder / "a"), _Server(folder / "b")
        self.primary.make()
        name = make_url(self.primary.admin.create_database()).database
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (self.primary, self.standby))
        # No target_session_attrs: the node asks for the server that can be written by itself.
        self.url = f"postgresql+psycopg://postgres@/{name}?{hosts}"
        self._engine = create_engine(f"{self.url}&target_session_attrs=read-write", pool_pre_ping=True)
        self.join()

    def processes(self) -> list[int]:
        return [*self.primary.processes(), *self.standby.processes()]

    def join(self) -> None:
        """Let the standby follow the primary; from then on commits wait for it."""
        self.primary.admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.primary.admin.execute("SELECT pg_reload_conf()")
        self.standby.follow(self.primary)
        wait_until(lambda: self._replicates("streaming"), "replication")
        if self.synchronous:
            self.primary.admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.admin.execute("SELECT pg_reload_conf()")
            wait_until(lambda: self._replicates("sync"), "synchronous replication")

    def _replicates(self, how: str) -> bool:
        column = "state" if how == "streaming" else "sync_state"
        return self.primary.says(f"SELECT {column} FROM pg_stat_replication WHERE state = 'streaming'") == how

    def patients(self) -> set[str]:
        """Whose images the primary knows of."""
        with self._engine.connect() as connection:
            return set(connection.scalars(text("SELECT patient_id FROM instances")))

    def fail_over(self, way: str, random: Random) -> None:
        """Lose the primary and promote the standby. The primary is dead before: two primaries are no failover."""
        old = self.primary
        assert old.process is not None
        if not self.synchronous:
            self._fall_behind()
        if way == "stopped" and self.synchronous:
            old.process.send_signal(signal.SIGINT)
            old.process.wait(60)
        elif way == "hung":
            signal_all(old.processes(), signal.SIGSTOP)
            time.sleep(random.uniform(0.5, 4))
        old.kill()
        time.sleep(random.uniform(0, 3))
        # The new primary must not wait for a standby that there is not; whoever runs one decides the same.
        self.primary, self.standby = self.standby, old
        wait_until(lambda: self.primary.says("SELECT pg_promote()") == "True", "the promotion")
        time.sleep(random.uniform(0, 2))
        self.join()

    def _fall_behind(self) -> None:
        """Stop what sends to the standby for a second, with all that the primary commits meanwhile."""
        sending = [each for each in self.primary.processes() if "walsender" in " ".join(command_line(each))]
        signal_all(sending, signal.SIGSTOP)
        time.sleep(1)

    def stop(self) -> None:
        self._engine.dispose()
        for server in (self.standby, self.primary):
            server.stop()


def run(folder: Path, seed: int, failovers: int, synchronous: bool, say: Say) -> Outcome:
    """Run a campaign."""
    random = Random(f"failover {seed}")
    outcome = Outcome(f"failover, {'synchronous' if synchronous else 'asynchronous'} replication", seed)
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "pair", synchronous=synchronous)
    with whole_node(folder, "postgresql", server=pair) as whole:
        modalities = Modalities([whole.node.port], (image(seed, number) for number in count()), _SENDERS, 2.0)
        modalities.start()
        for number in range(1, failovers + 1):
            time.sleep(random.uniform(3, 8))
            way = WAYS[number % len(WAYS)]
            say(f"{number}/{failovers} the primary is {way} ({len(modalities.accepted)} accepted)")
            pair.fail_over(way, random)
            enough = len(modalities.accepted) + _AFTERWARDS
            wait_until(partial(_accepts, modalities, enough), "the next images", 120, 0.5, whole.node.check_alive)
        modalities.finish(180, stop=True)
        patients = [each.patient for each in modalities.accepted]
        say(f"peace: {len(patients)} accepted, {whole.unfinished()}")
        recorded = pair.patients()
        known = patients if synchronous else [each for each in patients if each in recorded]
        _held, faults = wait_and_count(whole, known, 900)
        # What was lost with the primary may have results of before.
        outcome.faults = faults if synchronous else [each for each in faults if "never accepted" not in each]
        outcome.figures = {
            "failovers": failovers,
            "images accepted": len(patients),
            "sent again by modalities": modalities.failures(),
            "answers other than 0x0000": ", ".join(_statuses(modalities)),
            "accepted, and lost with the primary": len(patients) - len(known),
        }
    return outcome


def _accepts(modalities: Modalities, enough: int) -> bool:
    return len(modalities.accepted) >= enough


def _statuses(modalities: Modalities) -> list[str]:
    named = {-1: "no answer"}
    return [f"{named.get(status, f'0x{status:04X}')} {n}" for status, n in sorted(modalities.answers.items()) if status]


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--failovers", type=int, default=5, help="so often the primary is lost (default 5)")
    parser.add_argument("--asynchronous", action="store_true", help="commits do not wait for the standby")
    given = parser.parse_args()
    run_campaign(
        given, lambda folder, say: run(folder / "run", given.seed, given.failovers, not given.asynchronous, say)
    )


if __name__ == "__main__":
    main()
