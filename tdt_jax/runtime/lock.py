"""One process at a time in a folder."""

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

UNKNOWN = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # to some file systems

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """A context that one process at a time is in; one that dies in it leaves it.

    The system's own lock on the file `path`, so over NFS between hosts as well; where a file system
    knows none, the log says so. The file stays, and says who held it last.

    Raises: ValueError naming who is in it, unless `wait`.
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
            if error.errno not in UNKNOWN:
                raise
            log.warning("%s: nothing keeps a second process away (%s)", path.parent, error.strerror)
        else:
            with contextlib.suppress(OSError):  # a full disk; it is only to be read by people
                since = time.strftime("%Y-%m-%d %H:%M:%S %z")
                os.ftruncate(descriptor, 0)
                who = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
                os.pwrite(descriptor, who.encode(), 0)
        yield
    finally:
        os.close(descriptor)
