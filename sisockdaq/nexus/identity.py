"""Writing files as another user: what std-daq's ``writer_user_id`` asks for.

Linux keeps, for each thread by itself, a user and a group in whose name files are made and checked (``setfsuid(2)``,
made for file servers), and its supplementary groups. So only the thread that writes becomes the user, only while it
touches files, and nothing else of the process changes. It takes root, or the capabilities CAP_SETUID and CAP_SETGID.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import pwd
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

__all__ = ["FileUser", "may_write", "user_obstacle", "writing_as"]

_SETGROUPS = {"x86_64": 116, "aarch64": 159}
"""System call numbers: the C library's own ``setgroups`` would change all threads."""

_QUERY = -1
"""An impossible id: `setfsuid` changes nothing and answers the present one."""


class FileUser(AbstractContextManager[None]):
    """Whose files are made while the block runs; for the thread that enters it. May be entered again after its end.

    Parameters
    ----------
    user_id : int
    """

    def __init__(self, user_id: int) -> None:
        self.user_id = user_id
        try:
            entry = pwd.getpwuid(user_id)
            self.group_id = entry.pw_gid
            self.groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        except KeyError:  # a user that only the file server knows: the group of the same number, as it is there
            self.group_id, self.groups = user_id, [user_id]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._own_groups = os.getgroups()
            self._set_groups(self.groups)
            self._own = self._libc.setfsuid(_QUERY), self._libc.setfsgid(_QUERY)
            self._libc.setfsgid(self.group_id)
            self._libc.setfsuid(self.user_id)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._libc.setfsuid(self._own[0])
            self._libc.setfsgid(self._own[1])
            self._set_groups(self._own_groups)

    def works(self) -> bool:
        """Try whether this process may do it at all."""
        with self:
            return int(self._libc.setfsuid(_QUERY)) == self.user_id

    def _set_groups(self, groups: list[int]) -> None:
        number = _SETGROUPS.get(platform.machine())
        if number is not None:  # elsewhere the user's own group must do
            self._libc.syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups))


def writing_as(user_id: int | None) -> AbstractContextManager[None]:
    """Return the context in which files are that user's; None, and the process's own user: as things are."""
    return nullcontext() if user_id is None or user_id == os.geteuid() else FileUser(user_id)


def user_obstacle(user_id: int | None) -> str | None:
    """Return why this process cannot write as that user, or None."""
    if user_id is None or user_id == os.geteuid():
        return None
    if user_id < 0 or user_id >= 2**32 - 1:
        return f"{user_id} is no user id   → `id -u NAME` tells one"
    if FileUser(user_id).works():
        return None
    own = os.geteuid()
    return (
        f"the writer runs as user {own} and may not write as user {user_id}"
        f"   → ask for user {own}, or run the writer as root or as user {user_id}"
    )


def may_write(folder: os.PathLike[str], user_id: int | None) -> bool:
    """Say whether that user (None: this process's) may make files in an existing folder."""
    with writing_as(user_id):
        # Unlike access(2), which asks for the real user, the kernel checks this one for the file system's user.
        return os.access(folder, os.W_OK | os.X_OK) if user_id is None else _can_make(folder)


def _can_make(folder: os.PathLike[str]) -> bool:
    try:
        handle = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except IsADirectoryError:  # a file system without unnamed files
        return os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return os.access(folder, os.W_OK | os.X_OK)
        return False
    os.close(handle)
    return True
