"""HTML and SVG by hand: every text is escaped in one place, here."""

from __future__ import annotations

import html
from collections.abc import Iterable

from scalesweep.report import formatting as fmt

Attribute = str | float | int | bool | None


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Markup | None | Iterable["Child"]

_VOID = frozenset({"meta", "br", "link", "input", "hr"})


def text(value: str) -> Markup:
    """Escaped, and without what should not leave this machine."""
    return Markup(html.escape(fmt.public(value), quote=False))


def joined(children: Iterable[Child]) -> Markup:
    return Markup("".join(_rendered(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """An element. class_ becomes class, data_label data-label; None leaves an attribute out."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def _rendered(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return text(child)
    return joined(child)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if name == "viewbox":
        name = "viewBox"  # SVG minds the case
    shown = number(value) if isinstance(value, float) else name if value is True else str(value)
    if isinstance(value, str):
        shown = fmt.public(value)
    return f' {name}="{html.escape(shown)}"'


def number(value: float) -> str:
    """A coordinate: a hundredth of a pixel is enough."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
