"""Parts of messages: the reason in an error as one line, and the first of many names."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How many names a message shows.
SHOWN = 5


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, of at most 300 characters; without a text, the name of its class.

    serving/errors.py has the same function, because training imports nothing but the preparation of pictures from
    there.
    """
    lines = without_password(str(error)).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]:.300}"


def one_line(error: Exception) -> str:
    """Return an error's text with its lines joined, of at most 300 characters; without a text, the name of its class.

    This is for errors whose first line announces a reason that follows.
    """
    return f"{' '.join(without_password(str(error)).split()) or type(error).__name__:.300}"


def without_password(text: str) -> str:
    """Return a text without the user and the password in its URLs. Logs are kept, and read by others."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


def first_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
