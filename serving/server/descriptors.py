"""File descriptors: let this process and its workers open as many as their connections need."""

from __future__ import annotations

from dataclasses import replace

from serving.machine import allow_files
from serving.server.streams import warn
from serving.settings import Settings

# Connections beyond the limit that get a response, which is 503. Further ones are closed without a response.
EXTRA_CONNECTIONS = 128
# For everything else in a worker: its own files, scans of the repository, and connections that were just accepted.
OTHERS = 256


def with_descriptors(settings: Settings) -> Settings:
    """Raise the limit of open files as far as needed. Return the settings with as many connections as it allows."""
    ports = 2 if settings.grpc_port >= 0 else 1
    needed = ports * settings.max_connections + EXTRA_CONNECTIONS + OTHERS
    allowed = allow_files(needed)
    if allowed >= needed:
        return settings
    connections = max(1, (allowed - EXTRA_CONNECTIONS - OTHERS) // ports)
    warn(
        f"WARNING: --max-connections {settings.max_connections} needs {needed} open files for each worker, and this "
        f"process may have {allowed}, so a worker accepts only {connections} connections. Raise the hard limit of open "
        "files (ulimit -n; LimitNOFILE= in systemd; --ulimit nofile= in Docker), or set a lower --max-connections."
    )
    return replace(settings, max_connections=connections)
