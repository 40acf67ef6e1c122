"""Nested plain containers that many cells share: nothing is changed in place.

A step that was made before (the same file merged over the same node, the same value set in it)
gives the same object again, so what cells have in common is held once, and can be told by identity.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from hydra.core.override_parser.types import Override
from omegaconf._utils import split_key

Tree: TypeAlias = dict[str, Any]
"""Dicts, lists, text, numbers, booleans and None; keys are text."""


class NotCovered(Exception):
    """Composing on plain containers does not do this; Hydra itself composes the cell."""


class Change:
    """One override of a value, parsed once: the keys on its way, and what it does there."""

    def __init__(self, override: Override) -> None:
        self.keys: tuple[str, ...] = tuple(split_key(override.key_or_group))
        self.value: Any = override.value()
        self.adds = override.is_add()
        self.forces = override.is_force_add()
        self.deletes = override.is_delete()
        if not all(self.keys):
            raise NotCovered(f"{override.input_line}: empty key")
        if self.deletes and self.value is not None:
            raise NotCovered(f"{override.input_line}: deletes only where the value is the same")
        check_plain(self.value)


class SharedTrees:
    """Merging and setting; holds everything it made, so that an identity is never used twice."""

    def __init__(self) -> None:
        self._merged: dict[tuple[int, int], tuple[Tree, Tree, Tree]] = {}
        self._changed: dict[tuple[int, int], tuple[Any, Change, Any]] = {}

    def merge_into(self, root: Tree, piece: Tree) -> None:
        """Merge a file over a root, which is the caller's own; the nodes below are shared."""
        for key, value in piece.items():
            root[key] = self._over(root[key], value) if key in root else value

    def _over(self, old: Any, new: Any) -> Any:
        """A node with another merged over it, as OmegaConf does: dicts by key, lists as a whole."""
        if isinstance(new, dict):
            if isinstance(old, dict):
                return self._merge(old, new)
            if isinstance(old, list) or is_interpolation(old):
                raise NotCovered("a group of settings merged over a list or an interpolation")
        elif isinstance(new, list) and isinstance(old, dict):
            raise NotCovered("a list merged over a group of settings")
        return new

    def _merge(self, old: Tree, new: Tree) -> Tree:
        step = id(old), id(new)
        known = self._merged.get(step)
        if known is None:
            result = dict(old)
            self.merge_into(result, new)
            known = self._merged[step] = old, new, result
        return known[2]

    def apply(self, root: Tree, change: Change) -> None:
        """Do one override on a root, which is the caller's own; the nodes below are shared."""
        head = change.keys[0]
        if len(change.keys) == 1 or not isinstance(root.get(head), dict | list):
            self._change(root, change, 0)
            return
        node = root[head]
        step = id(node), id(change)
        known = self._changed.get(step)
        if known is None:
            known = self._changed[step] = node, change, self._with(node, change, 1)
        root[head] = known[2]

    def _with(self, node: Any, change: Change, depth: int) -> Any:
        """A copy of a node in which the change is made."""
        result = node.copy()
        self._change(result, change, depth)
        return result

    def _change(self, node: Any, change: Change, depth: int) -> None:
        key = place(node, change.keys[depth])
        there = isinstance(node, list) or key in node
        if depth + 1 < len(change.keys):
            if not there and (change.adds or change.forces):
                node[key] = {}
            elif not there or not isinstance(node[key], dict | list):
                raise NotCovered(f"{'.'.join(change.keys)}: no group of settings on the way")
            node[key] = self._with(node[key], change, depth + 1)
        elif change.deletes:
            if not there or node[key] is None or is_interpolation(node[key]):
                raise NotCovered(f"~{'.'.join(change.keys)}: nothing is there")
            if isinstance(node, list):
                raise NotCovered("an item of a list deleted")
            del node[key]
        else:
            node[key] = self._new_value(node[key] if there else None, change, there=there)

    def _new_value(self, old: Any, change: Change, *, there: bool) -> Any:
        """What stands at a key after it was set; old is None where nothing was."""
        new = change.value
        if change.adds and old is not None and not isinstance(new, dict | list):
            raise NotCovered("a value added where one is")
        if not there and not (change.adds or change.forces):
            raise NotCovered("a key that is not there")
        if isinstance(new, dict):
            if isinstance(old, dict) and (change.adds or change.forces or _has_keys(old, new)):
                return self._merge(old, new)
            if old is not None or not (change.adds or change.forces):
                raise NotCovered("a group of settings in place of a value")
        elif isinstance(new, list) and (isinstance(old, dict) or is_interpolation(old)):
            raise NotCovered("a list in place of a group of settings")
        return new


def _has_keys(old: Tree, new: Tree) -> bool:
    """Whether merging adds no key anywhere: one that is not there is an error without a +."""
    return all(
        (key in old and not isinstance(value, list | dict))
        or (
            isinstance(value, dict)
            and isinstance(old.get(key), dict)
            and _has_keys(old[key], value)
        )
        or (isinstance(value, list) and isinstance(old.get(key), list))
        for key, value in new.items()
    )


def place(node: Any, key: str) -> Any:
    """A key as its container takes it: an index that exists, or the text itself.

    Raises:
        NotCovered: it is no container, or has no such index.
    """
    if isinstance(node, dict):
        return key
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return int(key)
    raise NotCovered(f"{key}: no such place")


def is_interpolation(value: object) -> bool:
    """Whether OmegaConf would resolve it."""
    return isinstance(value, str) and "${" in value


def check_plain(value: object) -> None:
    """Refuse what is not plain, or has to be set elsewhere (???).

    Raises:
        NotCovered: it is, or holds, something else.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise NotCovered(f"{key}: a key that is not text")
            check_plain(item)
    elif isinstance(value, list):
        for item in value:
            check_plain(item)
    elif type(value) not in (str, int, float, bool, type(None)) or value == "???":
        raise NotCovered(f"{value}: not a plain value")
