"""Interpolations of a plain tree, resolved as OmegaConf resolves them, each distinct one once.

The grammar and the resolvers are OmegaConf's own. What is new is only that a result is kept: by the
expression and the values it read, and a whole node by the values that its expressions gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from omegaconf import AnyNode, Node, OmegaConf
from omegaconf._utils import split_key
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from scalesweep.config.trees import NotCovered, Tree, check_plain, is_interpolation, place

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root to a value."""

PURE_RESOLVERS = {"oc.env", "multiply", "miniature_identity", "miniature_path"}
"""Give the same for the same arguments all through a command; others are left to Hydra."""

DEEPEST = 20
"""Interpolations to interpolations; more is taken for a cycle, which OmegaConf names."""


class Expression:
    """One interpolated text at one place: what it reads, and its results by what it read."""

    def __init__(self, text: str, path: Path) -> None:
        self._results: dict[tuple[object, ...], Any] = {}
        self.reads: dict[str, Path] = {}
        """Key as it is written -> path from the root."""
        self._path = path
        try:
            self._parsed = parse(text)
            self._visit(self._read, self._check_resolver)
        except (OmegaConfBaseException, ValueError, AssertionError) as error:
            raise NotCovered(f"{text}: {error}") from error

    def value(self, read: Mapping[str, Any]) -> Any:
        """The result where its keys have these values."""
        known = tuple((type(value), value) for value in read.values())
        if known not in self._results:
            self._results[known] = self._evaluated(read)
        return self._results[known]

    def _evaluated(self, read: Mapping[str, Any]) -> Any:
        try:
            result = self._visit(lambda key, _: AnyNode(read[key]), _call)
        except Exception as error:  # whatever a resolver raises: OmegaConf adds where, and what
            raise NotCovered(str(error)) from error
        value = result._value() if isinstance(result, Node) else result
        if isinstance(value, dict | list):
            raise NotCovered("an interpolation that gives a group of settings or a list")
        check_plain(value)
        return value

    def _visit(self, of_key: Any, of_resolver: Any) -> Any:
        visitor = GrammarVisitor(
            node_interpolation_callback=of_key,
            resolver_interpolation_callback=of_resolver,
            memo=None,
        )
        return visitor.visit(self._parsed)

    def _read(self, key: str, _: object) -> AnyNode:
        """Note a key. A key made of other keys meets this None as its name, and is refused."""
        relative = len(key) - len(key.lstrip("."))
        if relative > len(self._path):
            raise NotCovered(f"{key}: above the root")
        base = self._path[:-relative] if relative else ()
        self.reads[key] = (*base, *split_key(key[relative:]))
        return AnyNode(None)

    def _check_resolver(self, name: str, **_: object) -> str:
        if name not in PURE_RESOLVERS:
            raise NotCovered(f"resolver {name}")
        return ""


def _call(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> Any:
    resolver = OmegaConf._get_resolver(name)
    if resolver is None:
        raise NotCovered(f"resolver {name}")
    nowhere = OmegaConf.create({})
    return resolver(nowhere, nowhere, AnyNode(None), args, args_str)


class _Part:
    """A node below the root whose constants are resolved already, and what is left to resolve."""

    def __init__(self, raw: Any, tree: Any, open_: list[tuple[Path, Expression]]) -> None:
        self.raw = raw  # held, so that its identity is not used again
        self.tree = tree
        self.open = open_
        self.results: dict[tuple[object, ...], Any] = {}


class Resolver:
    """Resolves trees that share nodes; equal nodes stay shared."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], _Part] = {}
        self._expressions: dict[tuple[str, Path], Expression] = {}

    def resolved(self, root: Tree) -> Tree:
        """A root with every interpolation replaced by its value.

        Raises:
            NotCovered: one of them cannot be resolved here, or not at all.
        """
        return {key: self._node(root, key, value) for key, value in root.items()}

    def _node(self, root: Tree, key: str, value: Any) -> Any:
        if isinstance(value, dict | list):
            part = self._parts.get((key, id(value)))
            if part is None:
                part = self._parts[key, id(value)] = self._part(key, value)
            return self._closed(root, part) if part.open else part.tree
        if is_interpolation(value):
            return self._value(root, value, (key,), DEEPEST)
        return value

    def _part(self, key: str, value: Any) -> _Part:
        tree, open_ = value, []
        for path, text in _texts(value, (key,)):
            expression = self._expression(text, path)
            if expression.reads:
                open_.append((path, expression))
            else:
                tree = _with(tree, path[1:], expression.value({}))
        return _Part(value, tree, open_)

    def _closed(self, root: Tree, part: _Part) -> Any:
        values = [self._evaluated(root, e, DEEPEST) for _, e in part.open]
        known = tuple((type(value), value) for value in values)
        if known not in part.results:
            tree = part.tree
            for (path, _), value in zip(part.open, values, strict=True):
                tree = _with(tree, path[1:], value)
            part.results[known] = tree
        return part.results[known]

    def _value(self, root: Tree, text: str, path: Path, depth: int) -> Any:
        return self._evaluated(root, self._expression(text, path), depth)

    def _expression(self, text: str, path: Path) -> Expression:
        expression = self._expressions.get((text, path))
        if expression is None:
            expression = self._expressions[text, path] = Expression(text, path)
        return expression

    def _evaluated(self, root: Tree, expression: Expression, depth: int) -> Any:
        if not depth:
            raise NotCovered("a cycle of interpolations")
        return expression.value(
            {key: self._read(root, path, depth - 1) for key, path in expression.reads.items()}
        )

    def _read(self, root: Tree, path: Path, depth: int) -> Any:
        """The resolved value at a path."""
        node: Any = root
        for key in path:
            at = place(node, str(key))
            if isinstance(node, dict) and at not in node:
                raise NotCovered(f"{'.'.join(map(str, path))}: no such key")
            node = node[at]
        if isinstance(node, dict | list):
            raise NotCovered(f"{'.'.join(map(str, path))}: no single value")
        return self._value(root, node, path, depth) if is_interpolation(node) else node


def _texts(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every interpolated text below a node."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _texts(value, (*path, key))
        elif is_interpolation(value):
            yield (*path, key), value


def _with(node: Any, path: Path, value: Any) -> Any:
    """A copy of a node with one value in another place replaced."""
    copy = node.copy()
    copy[path[0]] = value if len(path) == 1 else _with(node[path[0]], path[1:], value)
    return copy
