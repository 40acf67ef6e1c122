"""Composing many cells: on plain containers where that is sure to be right, else by Hydra."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from scalesweep.config.defaults import DefaultsList
from scalesweep.config.interpolation import Resolver
from scalesweep.config.trees import Change, NotCovered, SharedTrees, Tree

log = logging.getLogger(__name__)

Composed: TypeAlias = DictConfig | Tree
"""The config of one cell without Hydra's own node; plain ones are resolved already."""


class Composer:
    """Composes cells that share a command line.

    The quick way reads each file once, merges plain containers and parses each distinct override
    once. What it does not cover (NotCovered) goes to Hydra, which also words every error. Before
    it is used it has to reproduce what Hydra composed when the command started.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._by_hydra = _HydraComposer(loader, master)
        self._quick = _checked(loader, master)
        self.num_quick = 0
        self.num_by_hydra = 0

    def compose(self, overrides: Sequence[str]) -> Composed:
        """The config of one cell. Cells share nodes: nothing in it may be changed."""
        if self._quick is not None:
            try:
                config = self._quick.compose(overrides)
            except NotCovered as reason:
                log.debug("%s: composed by Hydra: %s", " ".join(overrides), reason)
            else:
                self.num_quick += 1
                return config
        self.num_by_hydra += 1
        return self._by_hydra.compose(overrides)


@dataclass
class _Meaning:
    """What one override does; group None: it changes a value."""

    group: str | None = None
    option: str = ""
    change: Change | None = None


@dataclass
class _QuickComposer:
    """Composes on plain containers. Everything it made is kept, and shared by later cells."""

    defaults: DefaultsList
    parser: OverridesParser
    trees: SharedTrees = field(default_factory=SharedTrees)
    resolver: Resolver = field(default_factory=Resolver)
    meanings: dict[str, _Meaning | NotCovered] = field(default_factory=dict)
    roots: dict[tuple[tuple[str, str], ...], Tree] = field(default_factory=dict)

    def compose(self, overrides: Sequence[str]) -> Tree:
        """The resolved config of one cell.

        Raises:
            NotCovered: Hydra has to compose it.
        """
        choices: dict[str, str] = {}
        changes: list[Change] = []
        for override in overrides:
            meaning = self._meaning(override)
            if meaning.group is not None:
                choices[meaning.group] = meaning.option
            elif meaning.change is not None:
                changes.append(meaning.change)
        root = dict(self._root(choices))
        for change in changes:
            self.trees.apply(root, change)
        return self.resolver.resolved(root)

    def _root(self, choices: dict[str, str]) -> Tree:
        key = tuple(sorted(choices.items()))
        root = self.roots.get(key)
        if root is None:
            root = self.roots[key] = {}
            for piece in self.defaults.pieces(choices):
                self.trees.merge_into(root, piece)
        return root

    def _meaning(self, text: str) -> _Meaning:
        known = self.meanings.get(text)
        if known is None:
            try:
                known = self._understood(text)
            except NotCovered as reason:
                known = reason
            self.meanings[text] = known
        if isinstance(known, NotCovered):
            raise known
        return known

    def _understood(self, text: str) -> _Meaning:
        try:
            (override,) = self.parser.parse_overrides([text])
        except HydraException as error:
            raise NotCovered(f"{text}: {error}") from error
        key = override.key_or_group
        if override.package is not None or override.is_sweep_override():
            raise NotCovered(f"{text}: a package, or several values")
        if override.is_hydra_override() or key == "hydra":
            raise NotCovered(f"{text}: a setting of Hydra's own")
        value = override.value()
        if self.defaults.is_group(key) and not isinstance(value, dict):
            if override.get_key_element() != key or not isinstance(value, str):
                raise NotCovered(f"{text}: more than a choice of one option")
            return _Meaning(group=key, option=value)
        return _Meaning(change=Change(override))


def _checked(loader: ConfigLoader, master: DictConfig) -> _QuickComposer | None:
    """The quick way, if it gives what Hydra composed from the command line without its axes."""
    try:
        if not isinstance(loader, ConfigLoaderImpl):
            raise NotCovered("another loader than Hydra's")
        name = master.hydra.job.config_name
        own, repository = loader._parse_overrides_and_create_caching_repo(
            name, list(master.hydra.overrides.hydra)
        )
        if any(not override.is_hydra_override() for override in own):
            raise NotCovered("settings among Hydra's own")
        parser = OverridesParser.create(config_loader=loader)
        quick = _QuickComposer(DefaultsList(loader, repository, name), parser)
        line = parser.parse_overrides(list(master.hydra.overrides.task))
        given = [str(o.input_line) for o in line if not o.is_sweep_override()]
    except (NotCovered, HydraException, OmegaConfBaseException) as reason:
        log.debug("all cells are composed by Hydra: %s", reason)
        return None
    try:
        # Text, so that the order of keys and the types of numbers count too.
        if repr(quick.compose(given)) == repr(_without_hydra(master)):
            return quick
        log.debug("all cells are composed by Hydra: it composes %s otherwise", given)
    except OmegaConfBaseException as error:
        log.debug("all cells are composed by Hydra: %s", error)
    except NotCovered:
        return quick  # an override that stands in every cell: each of them is Hydra's
    return None


def _without_hydra(master: DictConfig) -> Tree:
    return {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in ((key, master[key]) for key in master if key != "hydra")
    }


class _HydraComposer:
    """Hydra's own composition, each distinct set of choices once; values are set on a copy."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._trees: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of one cell, interpolations left in it."""
        parsed = self._parser.parse_overrides(list(overrides))
        structural = tuple(str(o.input_line) for o in parsed if self._is_structural(o))
        values = [o for o in parsed if not self._is_structural(o)]
        if structural not in self._trees:
            tree = self._loader.load_sweep_config(self._master, list(structural))
            with open_dict(tree):
                tree.pop("hydra", None)
            self._trees[structural] = tree
        config = copy.deepcopy(self._trees[structural])
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config

    def _is_structural(self, override: Override) -> bool:
        return (
            override.is_add()
            or override.is_delete()
            or override.is_force_add()
            or override.package is not None
            or override.is_hydra_override()
            or bool(self._loader.get_group_options(override.key_or_group))
        )
