"""A Docker engine for tests: the machine's own, or one in a private folder where there is only the program.

Where no registry is reached, the base image of the Dockerfile is a Debian of ``debootstrap`` with the Python 3.12 of
pyenv. The engine's folder stays, so that the next run finds its layers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.peers import skip_without, skip_without_peers

BASE = "python:3.12-slim-bookworm"
_FOLDER = Path(os.environ.get("PLEURA_TEST_ENGINE", "/var/tmp/pleura-engine"))
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Debian's client brings its builder; one without it may come first in PATH.
DOCKER = shutil.which("docker", path=os.pathsep.join(["/usr/bin", os.environ.get("PATH", "")])) or "docker"
_LIBRARIES = (
    "ca-certificates,netbase,tzdata,libffi8,libssl3,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,"
    "libncursesw6,libuuid1,libexpat1"
)


@dataclass(frozen=True)
class Engine:
    """A running Docker engine. ``environment`` is for its clients, ``docker`` and ``docker-compose``."""

    environment: dict[str, str] = field(repr=False)

    def run(self, *arguments: str | Path, folder: Path | None = None, check: bool = True, seconds: float = 900) -> str:
        """Run a client and return what it printed; an error tells all of it."""
        done = subprocess.run(
            [str(word) for word in arguments],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout[-4000:]}"
            )
        return done.stdout

    def docker(self, *arguments: str | Path, check: bool = True) -> str:
        """Run ``docker``; what it printed, without the line break at its end."""
        return self.run(DOCKER, *arguments, check=check).strip()

    def has(self, image: str) -> bool:
        """Whether the engine holds an image of that name."""
        return bool(self.docker("images", "--quiet", image))

    def layers(self, image: str) -> list[str]:
        """The digests (``sha256:…``) of the layers of an image, unpacked."""
        found: list[str] = json.loads(self.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", image))
        return found

    def compressed(self, image: str, without: str) -> int:
        """Bytes of the layers of ``image`` that ``without`` does not have, packed: no less than a registry keeps.

        ``docker push`` packs them by gzip too, harder, in four times the time.
        """
        wanted = set(self.layers(image)) - set(self.layers(without))
        command, total = [DOCKER, "save", image], 0
        with (
            subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE) as saving,
            tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
        ):
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                digest, size = _packed(file) if file is not None else ("", 0)
                total += size if digest in wanted else 0
        return total

    def build(self, folder: Path, tag: str, *options: str) -> None:
        """Build an image; the build may use the machine's network, which a private engine has no other way to."""
        self.docker("build", "--network", "host", "--tag", tag, *options, folder)


def _packed(file: IO[bytes]) -> tuple[str, int]:
    """The digest of a file, and the bytes that it takes when it is packed."""
    digest, packer, size = hashlib.sha256(), zlib.compressobj(zlib.Z_BEST_SPEED), 0
    while part := file.read(1 << 20):
        digest.update(part)
        size += len(packer.compress(part))
    return f"sha256:{digest.hexdigest()}", size + len(packer.flush())


@contextmanager
def running_engine() -> Iterator[Engine]:
    """The machine's engine if it answers, else a private one that is stopped at the end; skips where neither can be."""
    skip_without_peers("docker", "dockerd", "debootstrap", "docker-compose")
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "COMPOSE_HTTP_TIMEOUT": "300"}
    own = Engine(environment)
    if subprocess.run([DOCKER, "info"], env=environment, capture_output=True, check=False).returncode == 0:
        _base_image(own)
        yield own
        return
    if os.geteuid():
        skip_without("no Docker engine answers, and only root can start one")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    address = f"unix://{_FOLDER}/docker.sock"
    places = ["--data-root", _FOLDER / "data", "--exec-root", _FOLDER / "exec", "--pidfile", _FOLDER / "pid"]
    command = ["dockerd", *map(str, places), "--bip", "172.31.0.1/24", "-H", address]
    with (_FOLDER / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=_FOLDER, stdout=log, stderr=log, start_new_session=True)
    try:
        engine = Engine({**environment, "DOCKER_HOST": address})
        _wait_for(engine, process)
        _base_image(engine)
        yield engine
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    for _ in range(360):
        if process.poll() is not None:
            break
        if subprocess.run([DOCKER, "info"], env=engine.environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.5)
    skip_without(f"dockerd does not start here: {(_FOLDER / 'dockerd.log').read_text()[-1500:]}")


def _base_image(engine: Engine) -> None:
    """See to it that the Dockerfile's base is there: kept, pulled, or made of Debian's packages."""
    if engine.has(BASE):
        return
    if "Status:" in engine.docker("pull", BASE, check=False):
        return
    root = _FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    engine.run("debootstrap", "--variant=minbase", f"--include={_LIBRARIES}", "bookworm", root, mirror())
    _install_python(root)
    # The archive goes from tar into the engine, without a copy on the disk.
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(
            [DOCKER, "import", "-", BASE], env=engine.environment, stdin=packed.stdout, check=True, capture_output=True
        )
    shutil.rmtree(root, ignore_errors=True)


def mirror() -> str:
    """The Debian mirror of this machine."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    found = re.search(r"^(?:deb\b.*?|URIs:\s*)(https?://\S+)", text, re.MULTILINE)
    return found[1] if found else "http://deb.debian.org/debian"


def _install_python(root: Path) -> None:
    """Copy pyenv's Python 3.12 into a Debian, as the real base image has it: /usr/local/bin/python and pip."""
    versions = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.12.*"))
    if not versions:
        skip_without("no registry is reached, and pyenv has no Python 3.12 for a base image")
    shutil.copytree(versions[-1], root / "usr/local", dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(root / "usr/local/lib/python3.12/test", ignore_errors=True)
    for package in (root / "usr/local/lib/python3.12/site-packages").iterdir():
        shutil.rmtree(package, ignore_errors=True)
    if _CERTIFICATES.exists():  # the package index may have a certificate authority of its own
        shutil.copy(_CERTIFICATES, root / "etc/ssl/certs")
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n", encoding="utf-8")
    links = "ln -sf python3.12 /usr/local/bin/python && ln -sf pip3.12 /usr/local/bin/pip"
    steps = f"ldconfig && python3.12 -m ensurepip && {links}"
    subprocess.run(["chroot", str(root), "sh", "-c", steps], check=True, capture_output=True)
