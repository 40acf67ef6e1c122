"""Our composing equals Hydra's own, cell by cell, and by which way each cell went is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scalesweep.config.compose import Composed
from scalesweep.config.sweep import expand, load_sweep, sweep_names
from tests.config.hydra_command import Command, started


@pytest.fixture
def command() -> Iterator[Command]:
    with started() as command:
        yield command


def plain(config: Composed) -> Any:
    return (
        OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    )


def assert_same(ours: Composed, theirs: Any) -> None:
    """Equal in values, in types (1 is not 1.0) and in the order of keys."""
    assert repr(plain(ours)) == repr(theirs)


def test_cells_of_all_shipped_sweeps_equal_hydras_own(command: Command) -> None:
    composer = command.composer()
    cells = [cell for name in sweep_names() for cell in expand(load_sweep(name), {})]
    some = random.Random(0).sample(cells, 16)

    for cell in some:
        assert_same(composer.compose(cell), command.by_hydra(cell))

    assert (composer.num_quick, composer.num_by_hydra) == (len(some), 0)


GROUPS = {
    "model": ("mini_xs", "mini_s", "mini_m", "7b", "33b", "65b", "70b"),
    "resolution": ("32px", "48px", "224px", "336px"),
    "data_mix": ("mini", "mini_text", "llava80k", "llava80k_sharegpt"),
    "tuning": ("full", "lora", "qlora"),
    "lora": ("none", "all_linear"),
    "optim": ("mini", "paper"),
    "batch": ("mini", "paper"),
    "base": ("none", "mini", "sharegpt"),
    "align": ("mini", "paper"),
    "evaluation": ("mini", "mini_dev", "paper", "mmlu"),
    "judge": ("exact_match", "gpt4", "gpt4o", "local"),
    "tracking": ("none", "wandb_offline"),
    "cluster": ("local", "azure_nd_a100_v4"),
}
VALUES = (
    "seed=7",
    "nodes=3",
    "optim.lr=0.001",
    "optim.lr=1e-5",
    "optim.lr=${model.base_lr}",
    "++optim.lr=2",
    "lora.rank=16",
    "lora.rank=null",
    "lora.alpha=${multiply:3,${lora.rank}}",
    "lora.alpha=${.rank}",
    "lora.targets=[q_proj,v_proj]",
    "lora={rank:4,dropout:0.1}",
    "optim={lr:0.5}",
    "batch.global_batch_size=96",
    "batch.micro_batch_size=4",
    "base.language=null",
    "align.optim.betas=[0.9,0.95]",
    "align.optim.betas.1=0.98",
    "data_mix.sources=[{dataset:mini_train,file:a.json}]",
    "data_mix.sources.0.file=other.json",
    "evaluation.benchmarks.0.name=${study}",
    "study=text",
    "study='a quoted, text'",
    "store=${oc.env:HOME}/x",
    "store=x_${study}_${seed}",
    "+align.extra=${seed}",
    "+align.deeper.extra=1",
    "+new={a:1,b:[2,3]}",
    "++new.c=4",
    "~align.template",
    "datasets.mini_train.parameters={seed:5}",
    "datasets.llava80k.root=/data/${.generator}",
    "cluster.usd_per_node_hour=1.5",
    "budget.usd=12",
)


def random_overrides(dice: random.Random) -> list[str]:
    groups = dice.sample(sorted(GROUPS), dice.randint(0, 6))
    chosen = [f"{group}={dice.choice(GROUPS[group])}" for group in groups]
    overrides = chosen + dice.sample(VALUES, dice.randint(0, 6))
    dice.shuffle(overrides)
    return overrides


@pytest.mark.slow  # Hydra takes 0.3 s a cell
def test_random_cells_equal_hydras_own_and_nearly_all_go_the_quick_way(
    command: Command,
) -> None:
    dice = random.Random(20)
    composer = command.composer()
    refused = 0

    for _ in range(40):
        cell = random_overrides(dice)
        try:
            theirs = command.by_hydra(cell)
        except (HydraException, OmegaConfBaseException):
            refused += 1
            with pytest.raises((HydraException, OmegaConfBaseException)):
                plain(composer.compose(cell))
        else:
            assert_same(composer.compose(cell), theirs)

    assert refused <= 12
    assert composer.num_quick >= 40 - refused
    # Two cells that differ in nothing but one value are not mixed up by what they share.
    assert plain(composer.compose(["model=mini_m", "seed=1"])) != plain(
        composer.compose(["model=mini_m", "seed=2"])
    )


@pytest.mark.parametrize(
    "cell",
    [
        ["+optim@second=mini"],
        ["model@model=7b"],
        ["model=mini_s", "hydra.verbose=true"],
        ["study=${oc.decode:'text'}"],
        ["study=${oc.env:${until},none}"],
        ["study=${${until}}", "until=judge"],
        ["new=1"],
        ["~optim=mini"],
        ["seed=1,2"],
        ["model=none_such"],
        ["model=[mini_s,mini_m]"],
        ["lora.alpha=${lora.alpha}"],
        ["budget=null"],
        ["optim.lr=${"],
        ["store=${oc.env:NOT_SET_ANYWHERE}"],
    ],
    ids=" ".join,
)
def test_what_the_quick_way_does_not_cover_is_hydras_with_its_messages(
    cell: list[str], command: Command
) -> None:
    composer = command.composer()

    try:
        theirs = command.by_hydra(cell)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        with pytest.raises(type(error)):
            plain(composer.compose(cell))
    else:
        assert_same(composer.compose(cell), theirs)
    assert (composer.num_quick, composer.num_by_hydra) == (0, 1)


def test_ones_own_options_are_composed_quickly_too(tmp_path: Path) -> None:
    write(
        tmp_path / "optim/own.yaml",
        "defaults: [mini, _self_]\nweight_decay: 0.25\nepochs: ${.weight_decay}\n",
    )
    write(tmp_path / "model/wide.yaml", "# @package _global_\ndefaults:\n  - mini_m\n  - _self_\n"
          "  - override /lora: all_linear\nmodel: {name: wide, num_layers: 5}\n")  # fmt: skip
    write(tmp_path / "recipe/wide_full.yaml", "optim: {eps: 1e-3}\n")
    cell = ["model=wide", "optim=own", "tuning=full", "lora.rank=2"]

    with started(config_dir=tmp_path) as command:
        composer = command.composer()
        ours = plain(composer.compose(cell))

        assert_same(ours, command.by_hydra(cell))
    assert composer.num_quick == 1
    assert ours["optim"]["weight_decay"] == ours["optim"]["epochs"] == 0.25
    assert ours["optim"]["eps"] == 1e-3


def test_an_option_that_brings_a_group_of_its_own_is_left_to_hydra(tmp_path: Path) -> None:
    write(tmp_path / "optim/own.yaml", "defaults: [/lora@inner: all_linear, mini, _self_]\n")
    cell = ["optim=own", "optim.inner.rank=3"]

    with started(config_dir=tmp_path) as command:
        composer = command.composer()

        assert_same(composer.compose(cell), command.by_hydra(cell))
        assert (composer.num_quick, composer.num_by_hydra) == (0, 1)


def test_settings_that_come_in_with_hydras_own_turn_the_quick_way_off(tmp_path: Path) -> None:
    write(tmp_path / "hydra/launcher/odd.yaml", "# @package _global_\nseed: 11\n")

    with started("hydra/launcher=odd", config_dir=tmp_path) as command:
        composer = command.composer()
        ours = composer.compose(["model=mini_m"])

        assert_same(ours, command.by_hydra(["model=mini_m"]))
        assert (composer.num_quick, composer.num_by_hydra) == (0, 1)


def test_cells_share_what_they_have_in_common(command: Command) -> None:
    composer = command.composer()

    first = plain(composer.compose(["model=mini_s", "tuning=lora", "seed=1", "lora.rank=4"]))
    second = plain(composer.compose(["model=mini_s", "tuning=lora", "seed=2", "lora.rank=4"]))

    assert first["align"] != second["align"]  # its seed is the cell's
    assert first["lora"] is second["lora"]
    assert first["datasets"] is second["datasets"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", sweep_names())
def test_every_shipped_sweep_has_a_question_and_cells(name: str) -> None:
    sweep = load_sweep(name)

    assert sweep.question
    assert expand(sweep, {})
