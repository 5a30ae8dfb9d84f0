"""A folder that one process uses at a time, by the operating system's lock on a file in it."""

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Errors of file systems that have no locks.
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock on the file `path` within the context; it ends with the process at the latest.

    The lock also holds between hosts that share the folder over NFS. On a file system without locks
    a warning is logged, and nothing is locked. The file remains, and names its last holder.

    Args:
      wait: wait until the lock is free.

    Raises: ValueError naming the holder, unless `wait`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no locks")
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            raise ValueError(f"{path.parent} is in use by {holder or 'another process'}") from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            log.warning("%s: nothing keeps a second process away (%s)", path.parent, error.strerror)
        else:
            with contextlib.suppress(OSError):  # a full disk; only people read this line
                since = time.strftime("%Y-%m-%d %H:%M:%S %z")
                os.ftruncate(descriptor, 0)
                who = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
                os.pwrite(descriptor, who.encode(), 0)
        yield
    finally:
        os.close(descriptor)
