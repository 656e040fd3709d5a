"""The user that a process runs as: a container may run it as a number that has no name and no home.

Libraries ask for both: torch for a name in the path of its cache, the Hugging Face hub for a home in that of its own.
Without them one raises KeyError, and the other makes a folder that is called `~`.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Variables in which Python looks for the name of the user before it asks the system."""


def name_user() -> Path | None:
    """Give the user of this process a name and a home in the environment, where it has none.

    Call it before libraries are imported. Returns the folder that was chosen as its home, None where it has one. It is
    a temporary one: caches go there, and nothing that must be kept.
    """
    user = os.getuid()
    if not any(os.environ.get(name) for name in _NAMES) and not _is_known(user):
        os.environ["LOGNAME"] = f"uid{user}"
    if os.path.isabs(os.path.expanduser("~")):
        return None
    home = _private_folder(user)
    os.environ["HOME"] = str(home)
    return home


def _is_known(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _private_folder(user: int) -> Path:
    """The same folder at every start, unless somebody else has made one of this name."""
    folder = Path(tempfile.gettempdir()) / f"sae-monitor-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass  # a file of this name, or a link
    return Path(tempfile.mkdtemp(prefix="sae-monitor-"))
