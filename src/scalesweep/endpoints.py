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


def public_url(url: str) -> str:
    """An address without user, password, query and fragment: what may be written down."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def has_secrets(url: str) -> bool:
    """Whether an address has a part that public_url leaves out."""
    parts = urlsplit(url)
    return "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)


def needs_key(endpoint: str, url: str) -> bool:
    """Whether an endpoint wants a key: all do but one's own server on this machine."""
    return not (endpoint == "compatible" and _is_loopback(urlsplit(url).hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of_environment(endpoint: str) -> str | None:
    """The whole address of a kind of endpoint; never to be written down."""
    return os.environ.get(URL_VARIABLES[endpoint]) or None
