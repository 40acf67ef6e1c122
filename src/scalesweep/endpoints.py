"""Addresses of judges' endpoints, told apart from what is secret in them. A leaf."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit, urlunsplit

OPENAI_URL = "https://api.openai.com/v1"

URL_VARIABLES = {
    "openai": "OPENAI_BASE_URL",
    "azure": "AZURE_OPENAI_ENDPOINT",
    "compatible": "OPENAI_BASE_URL",
}
"""Kind of endpoint -> environment variable with its address, where the settings give none."""


def url_fault(url: str) -> str | None:
    """Why an address is none, in words that quote nothing of it; None: it is one.

    A password with a / or # or ? of its own ends the host early: what follows would pass for a
    path, and be written down.
    """
    encode = "percent-encode user and password in it"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is no address: its host or port cannot be read; {encode}"
    if "@" in parts.path + parts.query + parts.fragment:
        return f"has an @ after its host; {encode}"
    if parts.scheme not in ("http", "https"):
        return "must begin with https:// or http://"
    return None if host else "has no host"


def public_url(url: str) -> str:
    """An address without user, password, query and fragment: what may be written down.

    Only of an address without a url_fault.
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def has_secrets(url: str) -> bool:
    """Whether an address has a part that public_url leaves out."""
    parts = urlsplit(url)
    return "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)


def needs_key(endpoint: str, url: str) -> bool:
    """Whether an endpoint wants a key: all do but one's own server on this machine."""
    return not (endpoint == "compatible" and is_loopback(url))


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of_environment(endpoint: str) -> str | None:
    """The whole address of a kind of endpoint; never to be written down."""
    return os.environ.get(URL_VARIABLES[endpoint]) or None
