"""Run a command under a seccomp profile, as a container engine does: confined.py PROFILE COMMAND [ARGUMENT ...].

It uses libseccomp, which every container engine uses too. The exit status is 3 if the library is missing.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ACTIONS = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO}
COMPARISONS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class Comparison(ctypes.Structure):
    """The structure scmp_arg_cmp of libseccomp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def confine(profile: Path) -> None:
    """Load the filter into this process. Every program that it executes keeps the filter."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit(3)
    rules = json.loads(profile.read_text())
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ERRNO | rules["defaultErrnoRet"]))
    for rule in rules["syscalls"]:
        action = ACTIONS[rule["action"]] | rule.get("errnoRet", 0)
        arguments = rule.get("args", [])
        comparisons = (Comparison * len(arguments))(
            *(
                Comparison(each["index"], COMPARISONS[each["op"]], each["value"], each.get("valueTwo", 0))
                for each in arguments
            )
        )
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Below zero are the calls that this architecture or this version of the library does not have. Engines
            # leave them out too.
            if number >= 0 and action != ERRNO | rules["defaultErrnoRet"]:
                status = library.seccomp_rule_add_array(context, action, number, len(arguments), comparisons)
                assert status == 0, (name, status)
    assert library.seccomp_load(context) == 0, "the kernel does not accept the filter"


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
