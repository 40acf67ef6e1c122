"""Which files a choice of group options merges, in which order: Hydra's defaults list, quickly.

Hydra works the list out anew for every cell. Here each option is expanded once, by Hydra itself,
and what is left for a cell is to follow the choices: the command line first, then what options
override in other groups, from the last group of the list to the first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import Overrides, _create_defaults_tree, _tree_to_list
from hydra.core.default_element import (
    ConfigDefault,
    DefaultsTreeNode,
    GroupDefault,
    InputDefault,
    ResultDefault,
)
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from scalesweep.config.trees import NotCovered, Tree, check_plain

CHOICE = re.compile(r"\$\{(\w+)\}")
"""The option chosen for another group, in the name of an option."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """An entry of the primary config's list; its default None where the list says null."""

    key: str
    """As an override names it: group, or group@package."""
    option: str | None
    default: GroupDefault

    @property
    def follows_others(self) -> bool:
        return self.option is not None and "${" in self.option


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One option of a group, its own files and those it includes, in the order of merging."""

    pieces: tuple[Tree, ...]
    overrides: Mapping[str, str]
    """Group -> option that it chooses, unless the command line or a later group does."""


class DefaultsList:
    """The list of one primary config. Files are read once, through Hydra's repository.

    Raises:
        NotCovered: the list holds more than groups, `_self_` and overrides of Hydra's own groups.
    """

    def __init__(
        self, loader: ConfigLoaderImpl, repository: IConfigRepository, config_name: str
    ) -> None:
        self._loader = loader
        self._repository = repository
        self._options: dict[tuple[str, str], _Option] = {}
        loaded = repository.load_config(config_name)
        if loaded is None or loaded.header["package"] is not None:
            raise NotCovered(f"{config_name}: no primary config, or one with a package")
        own = ResultDefault(config_path=config_name, package="", is_self=True, primary=True)
        self._own = self._tree(own)
        self._entries: list[_Group | None] = []  # None: _self_
        for default in copy.deepcopy(loaded.defaults_list or []):
            self._add_entry(default)
        self._groups = {entry.key: entry for entry in self._entries if entry is not None}
        if self._entries.count(None) != 1 or len(self._groups) + 1 != len(self._entries):
            raise NotCovered(f"{config_name}: _self_ and every group must stand once")

    def _add_entry(self, default: InputDefault) -> None:
        if isinstance(default, ConfigDefault) and default.is_self():
            self._entries.append(None)
            return
        if not isinstance(default, GroupDefault) or isinstance(default.value, list):
            raise NotCovered(f"{default}: not a group with one option")
        default.update_parent("", "")
        if default.is_override():
            if not default.get_group_path().startswith("hydra/"):
                raise NotCovered(f"{default}: overridden where it is declared")
            return
        key, option = default.get_override_key(), default.value
        if option is not None and "${" in CHOICE.sub("", option):
            raise NotCovered(f"{key}: {option}: more than choices of groups")
        self._entries.append(_Group(key=key, option=option, default=default))

    def is_group(self, key: str) -> bool:
        """Whether there is such a folder, as Hydra decides it."""
        return bool(self._repository.group_exists(key))

    def pieces(self, choices: Mapping[str, str]) -> list[Tree]:
        """What is merged, first to last, each already at its place below the root.

        choices: group -> option of the command line.

        Raises:
            NotCovered: Hydra would refuse it, or knows more about it.
        """
        if not choices.keys() <= self._groups.keys():
            raise NotCovered("a group that is not in the primary config's list")
        chosen = dict(choices)
        known: dict[str, str | None] = {}
        found: dict[str, _Option] = {}
        late: list[_Group] = []
        for entry in reversed(self._entries):
            if entry is None:
                continue
            if entry.follows_others and entry.key not in chosen:
                late.append(entry)
                known[entry.key] = None
                continue
            option = known[entry.key] = chosen.get(entry.key, entry.option)
            if option is None:
                continue
            found[entry.key] = expanded = self._option(entry, option)
            for group, other in expanded.overrides.items():
                if group in chosen:
                    continue
                if group in known or group not in self._groups:
                    raise NotCovered(f"{entry.key}={option}: overrides {group}, not before it")
                chosen[group] = other
        for entry in late:
            assert entry.option is not None
            found[entry.key] = self._option(entry, _named(entry.option, known))
        pieces: list[Tree] = []
        for entry in self._entries:
            if entry is None:
                pieces.append(self._own)
            elif entry.key in found:
                pieces += found[entry.key].pieces
        return pieces

    def _option(self, group: _Group, name: str) -> _Option:
        option = self._options.get((group.key, name))
        if option is None:
            option = self._options[group.key, name] = self._expanded(group, name)
        return option

    def _expanded(self, group: _Group, name: str) -> _Option:
        """An option by Hydra's own expansion, as if it were alone."""
        if name == "???" or "${" in name:
            raise NotCovered(f"{group.key}={name}: not an option")
        node = copy.deepcopy(group.default)
        node.value = name
        overrides = Overrides(repo=self._repository, overrides_list=[])
        try:
            tree = _create_defaults_tree(
                repo=self._repository,
                root=DefaultsTreeNode(node=node),
                is_root_config=False,
                skip_missing=False,
                interpolated_subtree=group.follows_others,
                overrides=overrides,
            )
            pieces = tuple(self._tree(result) for result in _tree_to_list(tree))
        except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
            raise NotCovered(f"{group.key}={name}: {error}") from error
        chosen = overrides.override_choices
        if not overrides.known_choices.keys() <= {group.key}:
            raise NotCovered(f"{group.key}={name}: brings groups of its own")
        if any(not isinstance(value, str) for value in chosen.values()):
            raise NotCovered(f"{group.key}={name}: overrides a group by none or several options")
        return _Option(pieces=pieces, overrides=cast(dict[str, str], chosen))

    def _tree(self, result: ResultDefault) -> Tree:
        """One file at its place below the root, plain; Hydra's own settings left out."""
        loaded = self._loader._load_single_config(default=result, repo=self._repository)
        if not isinstance(loaded.config, DictConfig):
            raise NotCovered(f"{result.config_path}: not a mapping")
        plain = OmegaConf.to_container(
            loaded.config, resolve=False, structured_config_mode=SCMode.DICT_CONFIG
        )
        tree = cast(Tree, plain)
        tree.pop("hydra", None)
        check_plain(tree)
        return tree


def _named(pattern: str, known: Mapping[str, str | None]) -> str:
    """The name of an option that follows the choices of other groups."""
    try:
        names = {key: known[key] for key in CHOICE.findall(pattern)}
    except KeyError as error:
        raise NotCovered(f"{pattern}: no group {error}") from error
    if None in names.values():
        raise NotCovered(f"{pattern}: a group without an option")
    return CHOICE.sub(lambda match: str(names[match.group(1)]), pattern)
