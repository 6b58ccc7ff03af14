"""``pleura init``: three questions, a configuration that works, and the result of ``pleura doctor``."""

from __future__ import annotations

import re
import socket
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import tomli_w

from config.value_types import is_ae_title
from node.cli.common import config_of, console, fail, program
from node.cli.doctor import doctor
from node.monitoring.time_zone import machine_zone

_PACS = re.compile(r"(?P<ae_title>[^@]+)@(?P<host>\[[^\]]+\]|[^@:\s]+)(:(?P<port>\d{1,5}))?")
_DICOM_PORT = 104
_HEADER = "# Made by `pleura init`; `pleura config --template` prints every other key. Research use only.\n\n"


def _ae_title(value: str) -> str:
    if not is_ae_title(value.strip()):
        raise click.BadParameter("an AE title has 1 to 16 ASCII characters, without backslash")
    return value.strip()


@dataclass(frozen=True, slots=True)
class Pacs:
    """AE title, host and port of a PACS; without a host there is none."""

    ae_title: str = ""
    host: str = ""
    port: int = _DICOM_PORT


def _pacs(value: str | Pacs) -> Pacs:
    if isinstance(value, Pacs):  # click converts what a prompt has converted again
        return value
    if not value.strip():
        return Pacs()
    found = _PACS.fullmatch(value.strip())
    if found is None or not 1 <= (port := int(found["port"] or _DICOM_PORT)) <= 65535:
        raise click.BadParameter("write AETITLE@HOST:PORT, such as PACS@10.0.0.10:104, or nothing")
    return Pacs(_ae_title(found["ae_title"]), found["host"].strip("[]"), port)


@click.command()
@click.option(
    "--ae-title",
    prompt="AE title of this node",
    default="PLEURA",
    type=_ae_title,
    metavar="AE",
    help="AE title of this node.",
)
@click.option(
    "--pacs",
    prompt="PACS, as AETITLE@HOST:PORT (nothing for none)",
    default="",
    show_default=False,
    type=_pacs,
    metavar="AETITLE@HOST:PORT",
    help="PACS that sends to this node and gets its results; an empty text for none.",
)
@click.option(
    "--folder",
    prompt="Folder for images and results",
    default="var",
    type=click.Path(path_type=Path),
    help="Folder for images and results.",
)
@click.option("--force", is_flag=True, help="Replace a configuration file that is there.")
@click.pass_context
def init(context: click.Context, ae_title: str, pacs: Pacs, folder: Path, force: bool) -> None:
    """Ask three questions, write a configuration (pleura.toml, or the file of --config), and check it.

    The PACS may send to this node and gets its results. Exit status 1 if `pleura doctor` finds anything.
    """
    path = config_of(context) or Path("pleura.toml")
    if path.exists() and not force:
        fail(f"{path} is there already; name another file with --config, or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_HEADER + tomli_w.dumps(configuration(ae_title, pacs, folder)), encoding="utf-8")
    console.print(f"{path} is written\n", markup=False, soft_wrap=True)
    command = f"{program()} --config {path}"
    console.print(f"Start the node:  {command} serve", markup=False, soft_wrap=True)
    console.print(f"Add a user:      {command} user add NAME --role admin\n", markup=False, soft_wrap=True)
    context.obj = path
    context.invoke(doctor, no_peers=False, as_json=False)


def configuration(ae_title: str, pacs: Pacs, folder: Path) -> dict[str, Any]:
    """The answers and the zone of this machine's clock as settings.

    Only a node with a PACS on another machine can be reached from outside.
    """
    made: dict[str, Any] = {"listener": {"ae_title": ae_title}, "store": {"folder": str(folder)}}
    if zone := machine_zone():
        made["site"] = {"time_zone": zone}
    if pacs.host:
        address = _address(pacs.host)
        here = address is not None and ip_address(address).is_loopback
        peer = {"ae_title": pacs.ae_title} | ({} if address is None else {"addresses": [address]})
        made["listener"] |= {} if here else {"host": "0.0.0.0"}  # noqa: S104  (the peers are named)
        made["listener"]["peers"] = [peer]
        made["destinations"] = [{"name": "pacs", **asdict(pacs)}]
    return made


def _address(host: str) -> str | None:
    """The IP address of a host; None where its name cannot be resolved now, which the doctor will say."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None
