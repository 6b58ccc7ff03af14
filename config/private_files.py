"""Files that only the node's user may open, whatever the umask.

The umask of a process is the one mechanism: code that makes files and folders asks for all permissions of user and
group, and the umask takes away what is too much.
"""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

_GROUP_AND_OTHERS = 0o077
_OTHERS = 0o007
FILE_MODE = 0o660
"""Permissions to ask for where a library would ask for others by itself; the umask takes away the group's."""


def keep_private() -> None:
    """From now on this process makes files with 0600 and folders with 0700. Each entry point begins with it.

    Neither it nor what it starts leaves a core file: the memory of a process that crashes holds patients.
    """
    os.umask(_GROUP_AND_OTHERS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def share_with_group(store: Path) -> None:
    """From now on the group may use what this process makes, too, where it is by its group that the node gets in."""
    if forbidden_bits(store) == _OTHERS:
        os.umask(_OTHERS)


def forbidden_bits(store: Path) -> int:
    """The permissions that no file of this node may give: those of group and others, or of others alone.

    A volume of a container belongs to another user than the node's, or to root's group with the right to write: the
    engine may run the node under another user tomorrow (OpenShift, ``fsGroup`` of Kubernetes).
    """
    try:
        status = store.stat()
    except OSError:
        return _GROUP_AND_OTHERS
    is_volume = status.st_gid == 0 or status.st_uid != os.getuid()
    return _OTHERS if is_volume and status.st_mode & stat.S_IWGRP else _GROUP_AND_OTHERS
