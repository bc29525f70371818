"""Takes from Python, while it starts, what only Linux has: for tests, with this folder on its path.

It stands for macOS and Windows where there is neither. Libraries that know every system have their
own way there; here they keep that of Linux.
"""

import asyncio
import errno
import functools
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

import psutil

MODULES = (
    "crypt", "curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "spwd", "syslog",
    "termios", "tty",
)  # fmt: skip
# What Windows lacks, and some of it macOS.
NAMES = {
    os: (
        "O_DIRECTORY", "chown", "copy_file_range", "fchmod", "fork", "forkpty", "getegid",
        "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority",
        "getrandom", "getsid", "getuid", "killpg", "lchown", "memfd_create", "mkfifo", "nice",
        "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite",
        "pwritev", "readv", "sched_getaffinity", "sched_setaffinity", "sendfile", "setsid",
        "sync", "sysconf", "writev",
    ),
    select: ("epoll", "poll"),
    signal: ("SIGALRM", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "pthread_sigmask", "sigwait"),
    socket: ("AF_UNIX", "SO_REUSEPORT", "TCP_INFO", "TCP_KEEPIDLE"),
}  # fmt: skip


def _look(path: object) -> None:
    if isinstance(path, str | os.PathLike) and f"{os.fspath(path)}/".startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _stat(path: Any, **options: Any) -> os.stat_result:
    _look(path)
    return _real_stat(path, **options)


def _not_implemented(*arguments: object) -> NoReturn:
    raise NotImplementedError


# Python itself makes its pairs of sockets in another way on Windows.
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
psutil.PROCFS_PATH = "//proc"
for module, names in NAMES.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment]
_real_stat = os.stat
os.stat = _stat
sys.addaudithook(
    lambda event, what: _look(what[0]) if event in {"open", "os.listdir", "os.scandir"} else None
)
# As the loop that asyncio takes on Windows.
for method in ("add_signal_handler", "add_reader", "add_writer"):
    setattr(asyncio.SelectorEventLoop, method, _not_implemented)
