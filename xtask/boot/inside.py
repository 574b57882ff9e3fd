"""inside.py COMMAND...: runs a command in new user, mount and process namespaces, as their root, with a table of
binary formats of its own. Numbers of users and groups stay what they are, so this takes real root outside."""

import ctypes
import os
import sys

NEW_USER, NEW_MOUNTS, NEW_PROCESSES = 0x10000000, 0x00020000, 0x20000000
PRIVATE_BELOW = 0x44000
NUMBERS = "0 0 65536\n"

libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    if result != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def inner():
    """The namespaces' first process: ends when its child does."""
    os.setgid(0)
    os.setuid(0)
    child = os.fork()
    if child == 0:
        must(libc.mount(b"none", b"/", None, PRIVATE_BELOW, None), "cannot make mounts private")
        must(libc.mount(b"proc", b"/proc", b"proc", 0, None), "cannot mount /proc")
        must(
            libc.mount(b"none", b"/proc/sys/fs/binfmt_misc", b"binfmt_misc", 0, None),
            "cannot mount a table of binary formats of its own (Linux 6.7 or newer has them)",
        )
        os.execvp(sys.argv[1], sys.argv[1:])
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main():
    apart_read, apart_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    child = os.fork()
    if child == 0:
        must(libc.unshare(NEW_USER | NEW_MOUNTS | NEW_PROCESSES), "cannot make namespaces")
        os.write(apart_write, b"x")
        os.read(mapped_read, 1)
        inner()
    os.close(apart_write)
    if os.read(apart_read, 1):
        for kind in ("uid", "gid"):
            with open(f"/proc/{child}/{kind}_map", "w", encoding="ascii") as numbers:
                numbers.write(NUMBERS)
        os.write(mapped_write, b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


main()
