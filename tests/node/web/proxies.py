"""Reverse proxies of others in front of a server of this node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.orthanc import wait_until
from tests.ports import listens


def nginx_command(folder: Path, server: str) -> list[str]:
    """Write a configuration of nginx around ``server`` blocks that needs no root; the command that runs it."""
    temporary = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if Path("/root").owner() == "root" else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{server} }}\n"
    )
    return ["nginx", "-p", str(folder), "-e", str(folder / "log"), "-c", str(folder / "nginx.conf")]


@contextmanager
def running_nginx(folder: Path, port: int, server: str) -> Iterator[None]:
    """Run nginx with these ``server`` blocks, which listen at ``port``, until the block ends."""
    with running_proxy(nginx_command(folder, server), port, folder):
        yield


@contextmanager
def running_proxy(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """Run ``command``, which listens at ``port``, until the block ends; what it says is in ``folder``."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(folder)}
        )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, "the proxy", pause=0.05)
        assert process.poll() is None, (folder / "output").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)
