"""Print addresses of servers, stores and databases without the secrets that they may hold."""

from __future__ import annotations

import re

# With one slash it is an address that was taken for a path.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://|(?:https?|s3|gs|s?ftp):/(?!/)"
_ADDRESS = re.compile(rf"(?:{_SCHEME})[^\s'\"<>`]*")
_PORT = re.compile(r"[^/:?#@]*:[0-9]*(?=[/?#]|$)")  # host:5000, not user:password


def display_address(address: str) -> str:
    """Return an address as it may be printed: without user, password, query and fragment.

    address: a URL, or a path, which is returned unchanged.
    """
    scheme = re.match(_SCHEME, address)
    if not scheme:
        return re.sub(r"^[^/:@]+:[^/@]*@", "", address)  # user:password@host, whose scheme was forgotten
    rest = _without_user(address[scheme.end() :])
    # A path of SQLite may hold #, which begins a fragment only in addresses of servers.
    return scheme[0] + re.split("[?]" if scheme[0].startswith("sqlite") else "[?#]", rest, maxsplit=1)[0]


def without_secrets(text: str) -> str:
    """Return a text with every address in it as `display_address` gives it. An address ends at a blank or a quote."""
    return _ADDRESS.sub(_display_match, text)


def _display_match(match: re.Match[str]) -> str:
    address = match[0].rstrip(".,;:)]}")
    return display_address(address) + match[0][len(address) :]


def _without_user(rest: str) -> str:
    """Return the part of an address behind its scheme, without user and password.

    Special characters of a password should be encoded. One with plain @ / ? # is removed as well.
    """
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in host and (":" not in host or _PORT.match(rest)):
        return rest  # an @ further on is part of a path
    query = re.search("[?#]", rest[rest.find("@") + 1 :]) if "@" in rest else None
    end = rest.find("@") + 1 + query.start() if query else len(rest)
    return rest[:end].rpartition("@")[2] + rest[end:]
