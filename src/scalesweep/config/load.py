"""From a composed Hydra config to a typed RunConfig. After this there is no DictConfig."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scalesweep.config import paths
from scalesweep.config.cluster import ClusterConfig
from scalesweep.config.run import RunConfig
from scalesweep.config.schema import Parts, build
from scalesweep.errors import ConfigError


def register_resolvers() -> None:
    """Interpolations that conf/ uses; known before anything is composed."""
    for name, function in (
        ("multiply", lambda a, b: None if a is None or b is None else a * b),
        ("miniature_identity", paths.miniature_identity),
        ("miniature_path", paths.miniature_path),
    ):
        OmegaConf.register_new_resolver(name, function, replace=True)


def load(
    composed: DictConfig | Mapping[str, Any], *, planning: bool = False, parts: Parts | None = None
) -> RunConfig:
    """The typed config of one cell, every rule checked.

    composed: of Hydra, or plain and resolved.
    planning: nothing will run, so a full-size model may assume a cluster that is not here.
    parts: shared with the configs of other cells.

    Raises:
        ConfigError: a value has the wrong type or breaks a rule.
    """
    plain = _resolved(composed) if isinstance(composed, DictConfig) else composed
    values = dict(cast(Mapping[str, Any], plain))
    values.pop("hydra", None)
    values["cluster"] = resolved_cluster(
        values.get("cluster") or {},
        full_size=not (values.get("model") or {}).get("miniature", True),
        planning=planning,
    )
    return build(RunConfig, values, parts=parts)


def _resolved(composed: DictConfig) -> object:
    try:
        return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(readable(error)) from error


def readable(error: OmegaConfBaseException) -> str:
    """OmegaConf's message on one line, the key first."""
    key = str(getattr(error, "full_key", "") or "")
    text = str(getattr(error, "msg", None) or error).splitlines()[0]
    return f"{key}: {text}" if key and not text.startswith(key) else text


@cache
def slurm_answers() -> bool:
    """Whether sbatch can be called here, and works."""
    if shutil.which("sbatch") is None:
        return False
    try:
        ended = subprocess.run(
            ["sbatch", "--version"], capture_output=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def resolved_cluster(
    chosen: Mapping[str, Any], *, full_size: bool, planning: bool
) -> dict[str, Any]:
    """conf/cluster/auto made concrete; what is set on it wins over the file it stands for."""
    values = dict(chosen)
    if values.get("kind") != "auto":
        return values
    if slurm_answers():
        name = "slurm"
    elif full_size and planning:
        name = "azure_nd_a100_v4"
    else:
        name = "local"
    file = _cluster_file(name)
    given = _set_in({k: v for k, v in values.items() if k not in ("name", "kind", "prices")})
    prices = {**file["prices"], **_set_in(values.get("prices") or {})}
    return {**file, **given, "prices": prices}


def _set_in(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@cache
def _cluster_file(name: str) -> dict[str, Any]:
    file = paths.conf_dir() / "cluster" / f"{name}.yaml"
    return cast(dict[str, Any], yaml.safe_load(file.read_text(encoding="utf-8")))


def assumed_cluster_note(cluster: ClusterConfig, *, asked: str) -> str | None:
    """One line when the cluster was not chosen but assumed, else None."""
    if asked == "auto" and cluster.name == "azure_nd_a100_v4":
        return (
            "cluster=auto: no sbatch here, so azure_nd_a100_v4 is assumed "
            f"(8 A100-80GB a node at ${cluster.counted_usd_per_node_hour:.2f} per node-hour)"
        )
    return None
