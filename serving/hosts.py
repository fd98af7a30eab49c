"""Host names, addresses and origins: which of them only this machine can reach, and which may be allowed."""

from __future__ import annotations

import ipaddress
import re

# An origin as a browser sends it: a scheme and a host, perhaps with a port, in lower case.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")

LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address or name ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        # "127.1" is short for 127.0.0.1.
        return name in LOOPBACK_NAMES or name.endswith(".localhost") or re.fullmatch(r"127(\.\d+)*", name) is not None
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_host(name: str) -> bool:
    """Return whether ``name`` may be in the list of allowed hosts: a name, ``*``, ``*.name``, an address or nothing."""
    name = name.strip()
    if name in ("", "*") or re.fullmatch(r"(?:\*\.)?[A-Za-z0-9._-]+", name):
        return True
    try:
        return bool(ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def is_origin(text: str) -> bool:
    """Return whether ``text`` may be in the list of origins: an origin, ``null``, a pattern with ``*``, or nothing."""
    text = text.strip()
    return text in ("", "null") or "*" in text or ORIGIN.fullmatch(text) is not None
