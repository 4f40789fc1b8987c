"""The process that runs one answer and its tests: a script that `code` starts, on the standard library alone.

It limits itself before it reads a byte of the answer:
- processor time, memory, size and number of open files by resource limits;
- processes: a user's limit forbids them; root has no such limit, so the answer gets a process namespace
  of its own, and its end kills everything in it, sessions of their own included;
- files: where the kernel has Landlock (Linux from 5.13), only the answer's own folder can be written to,
  and no process outside can be signalled.

Usage: code_process.py SECONDS MEMORY_BYTES FILE_BYTES OPEN_FILES ANSWER TESTS, with the word that means
"passed" on standard input, so that an early exit with status 0 does not count. The word is not a name in
the answer's module; malicious code can still find it in this process.
"""

import ctypes
import os
import resource
import sys
import types
from pathlib import Path

CLONE_NEWPID, PR_SET_NO_NEW_PRIVS = 0x20000000, 38
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, equal on all of Linux's architectures."""
VERSION_FLAG, PATH_BENEATH, SCOPE_SIGNAL = 1, 1, 2
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
WRITES = WRITE_FILE | sum(1 << bit for bit in range(4, 13))
"""Write to, remove and make files, folders, links, sockets and devices."""
REFER = 1 << 13
"""Rename and link across folders."""


class RulesetAttr(ctypes.Structure):
    """What a Landlock ruleset handles: what it does not allow somewhere is forbidden."""

    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathBeneathAttr(ctypes.Structure):
    """What is allowed beneath an open folder."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def main(seconds: int, memory: int, size: int, files: int, answer: Path, tests: Path) -> None:
    """Run an answer and its tests in this process or a child of it."""
    word = sys.stdin.readline()
    limit_processes()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_writes(answer.parent)
    code, checks = answer.read_text(encoding="utf-8"), tests.read_text(encoding="utf-8")
    module = sys.modules["answer"] = types.ModuleType("answer")  # dataclasses look their module up
    exec(compile(code, "answer.py", "exec"), module.__dict__)  # noqa: S102  # the purpose of this process
    exec(compile(checks, "tests.py", "exec"), module.__dict__)  # noqa: S102
    sys.stdout.write("\n" + word)


def limit_processes() -> None:
    """Let nothing that the answer starts outlive it; exits where this user cannot be limited."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    try:
        child = os.fork()
    except OSError:
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(CLONE_NEWPID) != 0:
        sys.exit(
            "this user may start processes without limit, as root may, and cannot contain them: "
            "label as another user"
        )
    _return_only_in_child()  # the namespace's first process: whatever is in it dies with it
    _return_only_in_child()


def _return_only_in_child() -> None:
    child = os.fork()
    if child:
        os._exit(1 if os.waitpid(child, 0)[1] else 0)


def limit_writes(folder: Path) -> None:
    """Forbid writes outside of a folder, as far as this kernel can."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)
    if version < 1:  # a kernel without Landlock
        return
    writes = WRITES | REFER * (version >= 2) | TRUNCATE * (version >= 3)
    attr = RulesetAttr(writes, 0, SCOPE_SIGNAL * (version >= 6))
    known = 8 if version < 4 else 16 if version < 6 else 24  # bytes of the structure at that version
    rules = libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(known), 0)
    for path, allowed in ((folder, writes), (Path(os.devnull), WRITE_FILE)):
        opened = os.open(path, os.O_RDONLY)
        beneath = PathBeneathAttr(allowed, opened)
        libc.syscall(LANDLOCK_ADD_RULE, rules, PATH_BENEATH, ctypes.byref(beneath), 0)
        os.close(opened)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0) != 0:
        sys.exit("this kernel has Landlock and does not accept its rules")
    os.close(rules)


if __name__ == "__main__":
    numbers = [int(value) for value in sys.argv[1:5]]
    main(numbers[0], numbers[1], numbers[2], numbers[3], Path(sys.argv[5]), Path(sys.argv[6]))
