"""How ranks on several nodes find each other: by a file in the attempt's folder.

Rank zero listens on a port that the system gives it and writes down where; the others read it. The
socket is never closed in between, so two jobs on one node cannot take the same port, which they can
when a port is computed from a job id, or probed and then bound.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from scalesweep.errors import StoreError
from scalesweep.rundir import read_json, write_json

TIMEOUT_S = 600.0
"""For the others to import everything, and for a file to be seen on a slow shared file system."""
ADDRESS_VARIABLE = "SCALESWEEP_MASTER_ADDR"
"""Address of rank zero's node, where its host name does not resolve on the others."""


def rendezvous(
    file: Path,
    *,
    rank: int,
    world_size: int,
    timeout_s: float = TIMEOUT_S,
    address: str | None = None,
) -> TCPStore:
    """The store by which the ranks of an attempt meet.

    address: of rank zero's node, where it is known.

    Raises:
        TimeoutError: rank zero did not write the file in time.
    """
    timeout = timedelta(seconds=timeout_s)
    if rank == 0:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        address = address or os.environ.get(ADDRESS_VARIABLE) or socket.gethostname()
        listening.bind(("127.0.0.1" if world_size == 1 or address == "127.0.0.1" else "", 0))
        listening.listen(max(128, world_size))
        host, port = "127.0.0.1" if world_size == 1 else address, listening.getsockname()[1]
        write_json(file, {"host": host, "port": port})
        return TCPStore(
            host,
            port,
            world_size,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
            use_libuv=False,
        )
    host, port = _written(file, timeout_s)
    return TCPStore(
        host, port, world_size, is_master=False, timeout=timeout, wait_for_workers=False,
        use_libuv=False,
    )  # fmt: skip


def _written(file: Path, timeout_s: float) -> tuple[str, int]:
    end = time.monotonic() + timeout_s
    while True:
        try:
            found = read_json(file)
            return str(found["host"]), int(found["port"])
        except (FileNotFoundError, StoreError, KeyError) as error:
            if time.monotonic() >= end:
                raise TimeoutError(
                    f"rendezvous: rank 0 wrote no {file.name} in {timeout_s:.0f} s"
                ) from error
            time.sleep(0.2)
