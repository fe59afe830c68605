"""
A file system whose server does not answer, as a network file system's that is gone: in FUSE's own protocol.

It knows one file, `data`, and answers what it is told to; every other request waits for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
import time

from tests.victims.peers import Peer

LOOKUP, GETATTR, OPEN, INIT = 1, 3, 14, 26
ROOT, DATA = 1, 2
SIZE = 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Files(Peer):
    """A mount whose server answers only these requests: LOOKUP, GETATTR and OPEN, or fewer."""

    def __init__(self, answers: list[str]) -> None:
        self._answers = {
            {"lookup": LOOKUP, "getattr": GETATTR, "open": OPEN}[one] for one in answers
        }
        self._device = os.open("/dev/fuse", os.O_RDWR)
        self._point = tempfile.mkdtemp(prefix="dags-", dir="/mnt")
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"nfs.example:/dags", self._point.encode(), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), "mount")
        threading.Thread(target=self._serve, daemon=True).start()
        self.info = {"folder": self._point}

    def close(self) -> None:
        """Take the mount away; who hangs in it gets an error once this process has ended."""
        _libc.umount2(self._point.encode(), MNT_DETACH)
        os.close(self._device)
        with contextlib.suppress(OSError):
            os.rmdir(self._point)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                request = os.read(self._device, 1 << 18)
                _, opcode, unique, node = struct.unpack("=IIQQ", request[:24])
                answer = self._answer(opcode, node)
                if answer is not None:
                    head = struct.pack("=IiQ", 16 + len(answer), 0, unique)
                    os.write(self._device, head + answer)

    def _answer(self, opcode: int, node: int) -> bytes | None:
        if opcode == INIT:
            # struct fuse_init_out, version 7.31.
            return struct.pack("=IIIIHHII", 7, 31, 65536, 0, 16, 12, 65536, 1) + bytes(36)
        if opcode not in self._answers:
            return None
        if opcode == LOOKUP:
            return struct.pack("=QQQQII", DATA, 0, 3600, 3600, 0, 0) + _attributes(DATA)
        if opcode == GETATTR:
            return struct.pack("=QII", 3600, 0, 0) + _attributes(node)
        return struct.pack("=QII", 1, 0, 0)


class Frozen(Peer):
    """A real file system on a loop device. It can be frozen, as for a snapshot: then every change to it waits."""

    def __init__(self) -> None:
        self._image = tempfile.mkdtemp(prefix="image-")
        self._point = tempfile.mkdtemp(prefix="dags-", dir="/mnt")
        image = f"{self._image}/image"
        for command in (
            ["truncate", "-s", "16M", image],
            ["mkfs.ext4", "-q", image],
            ["mount", "-o", "loop", image, self._point],
        ):
            subprocess.run(command, check=True)
        self.info = {"folder": self._point}

    def freeze(self) -> None:
        """Let nobody change anything."""
        subprocess.run(["fsfreeze", "-f", self._point], check=True)

    def close(self) -> None:
        """Thaw it, and take it away."""
        subprocess.run(["fsfreeze", "-u", self._point], check=False)
        subprocess.run(["umount", "-l", self._point], check=False)
        shutil.rmtree(self._image, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(self._point)


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o755
    now = int(time.time())
    return struct.pack("=QQQQQQ", node, SIZE, SIZE // 512, now, now, now) + struct.pack(
        "=IIIIIIIIII", 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0
    )
