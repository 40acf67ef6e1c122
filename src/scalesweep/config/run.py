"""One cell's whole config, and the rules between its groups."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scalesweep.benchmark_options import files_besides, needs_judge
from scalesweep.config.align import AlignConfig
from scalesweep.config.base import BaseConfig
from scalesweep.config.batch import BatchConfig, gradient_accumulation_steps
from scalesweep.config.budget import BudgetConfig
from scalesweep.config.checks import at_least, one_of, require, shown
from scalesweep.config.cluster import ClusterConfig
from scalesweep.config.data_mix import DataMixConfig
from scalesweep.config.datasets import DatasetConfig, SourceConfig
from scalesweep.config.evaluation import EvaluationConfig
from scalesweep.config.judge import JudgeConfig
from scalesweep.config.kernels import KernelsConfig
from scalesweep.config.lora import LoraConfig
from scalesweep.config.model import ModelConfig
from scalesweep.config.optim import OptimConfig
from scalesweep.config.resolution import ResolutionConfig
from scalesweep.config.tracking import TrackingConfig
from scalesweep.config.tuning import TuningConfig
from scalesweep.config.zero import ZeroConfig
from scalesweep.errors import ConfigError

UNTIL = ("base", "align", "tune", "generate", "judge")


@dataclass(kw_only=True)
class RunConfig:
    """Everything about one cell."""

    study: str | None = None
    """Name of the study; null: the sweep file's name, or one made of the cells."""
    seed: int
    """Of stage 2: order of data, adapters' first weights, dropout."""
    store: str
    """Folder of everything on disk; relative to where the command is typed."""
    until: str = "judge"
    """Last kind of stage a cell runs: base | align | tune | generate | judge."""
    nodes: int
    """Nodes of the tune stage. Not part of the key."""
    precision: str
    """Compute dtype: fp32 | bf16."""
    model: ModelConfig
    resolution: ResolutionConfig
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    data_mix: DataMixConfig
    tuning: TuningConfig
    lora: LoraConfig
    optim: OptimConfig
    batch: BatchConfig
    zero: ZeroConfig
    kernels: KernelsConfig
    align: AlignConfig
    base: BaseConfig
    evaluation: EvaluationConfig
    judge: JudgeConfig
    budget: BudgetConfig
    tracking: TrackingConfig
    cluster: ClusterConfig

    def __post_init__(self) -> None:
        at_least(0, seed=("seed", self.seed))
        require(self.seed < 2**32, "seed", self.seed, "must be below 2^32")
        at_least(1, nodes=("nodes", self.nodes))
        one_of("precision", self.precision, ("fp32", "bf16"))
        one_of("until", self.until, UNTIL)
        require(bool(self.store), "store", "''", "name a folder")
        if self.study is not None:
            check_study_name("study", self.study)
        self.optim.check("optim")
        self._check_tuning()
        self._check_miniature()
        self._check_data()
        self._check_benchmark_files()
        self._check_judge()
        self._check_base()
        self._check_batch()
        self._check_budget()

    def _check_tuning(self) -> None:
        lora = self.lora
        if self.tuning.method == "full":
            for key, value in (
                ("rank", lora.rank),
                ("alpha", lora.alpha),
                ("dropout", lora.dropout),
                ("targets", lora.targets or None),
            ):
                require(
                    value is None,
                    f"lora.{key}",
                    value,
                    "has no effect under tuning=full; leave it out, or take tuning=lora or "
                    "tuning=qlora",
                )
            return
        for key, value in (("rank", lora.rank), ("alpha", lora.alpha), ("dropout", lora.dropout)):
            require(
                value is not None,
                f"lora.{key}",
                None,
                f"tuning={self.tuning.method} needs it; take lora=all_linear or set it",
            )
        require(
            bool(lora.targets),
            "lora.targets",
            "[]",
            "name at least one linear layer, or take lora=all_linear",
        )
        if self.tuning.method == "qlora" and self.zero.stage == 3:
            raise ConfigError(
                "zero.stage=3: 4-bit weights of tuning=qlora are not sharded by ZeRO-3; "
                "take zero.stage=2 (the paper's) or tuning=lora"
            )

    def _check_miniature(self) -> None:
        for group, name, miniature, fitting in (
            ("resolution", self.resolution.name, self.resolution.miniature, "resolutions"),
            ("data_mix", self.data_mix.name, self.data_mix.miniature, "data_mixes"),
            ("align", self.align.name, self.align.miniature, "aligns"),
            ("evaluation", self.evaluation.name, self.evaluation.miniature, "evaluations"),
        ):
            if group == "evaluation" and not miniature and self.model.template != "mini":
                continue  # whatever model reads English can be asked the official questions
            if miniature != self.model.miniature:
                way_out = FITTING[fitting][self.model.miniature]
                raise ConfigError(
                    f"{group}={name}: does not go with model={self.model.name}, "
                    f"{'a miniature' if self.model.miniature else 'a full-size model'}; "
                    f"choose {way_out}"
                )
        if "mini" in (self.align.template, self.model.template):
            require(
                self.align.template == self.model.template,
                "align.template",
                self.align.template,
                f"model={self.model.name} is spoken to as {self.model.template}, and only the "
                "miniature's own template and tokenizer know each other; choose "
                f"align={'mini' if self.model.template == 'mini' else 'mini_plain'}",
            )

    def _check_data(self) -> None:
        sources: list[tuple[str, SourceConfig]] = [
            *(("data_mix", source) for source in self.data_mix.sources),
            *(("align", source) for source in self.align.sources),
        ]
        for group, source in sources:
            self._check_dataset(f"{group}.sources.dataset", source.dataset)
        for benchmark in (*self.evaluation.benchmarks, *self.evaluation.base_benchmarks):
            self._check_dataset("evaluation.benchmarks.dataset", benchmark.dataset)

    def _check_judge(self) -> None:
        """Answers that only a model can judge are not generated to find no judge at the end."""
        asked = (*self.evaluation.benchmarks, *self.evaluation.base_benchmarks)
        options = self.evaluation.options
        judged = [b.name for b in asked if needs_judge(b.name, options.get(b.name, {}))]
        if judged and self.judge.scorer == "exact_match" and self.until == "judge":
            names = ", ".join(dict.fromkeys(judged))
            raise ConfigError(
                f"judge={self.judge.name}: {names} need a judge model; take judge=gpt4 or another "
                "of conf/judge/, until=generate, or another evaluation"
            )

    def _check_benchmark_files(self) -> None:
        """What a judge is shown determines scores: its files are declared, or in no key."""
        evaluation = self.evaluation
        for benchmark in (*evaluation.benchmarks, *evaluation.base_benchmarks):
            declared = self.datasets[benchmark.dataset].files
            given = evaluation.options.get(benchmark.name, {})
            for option, file in files_besides(benchmark.name, given).items():
                require(
                    not declared or file in declared,
                    f"evaluation.options.{benchmark.name}.{option}",
                    file,
                    f"is not among the files of data set {benchmark.dataset}; declare it: "
                    f"'+datasets.{benchmark.dataset}.files={{{file}: \"\"}}'",
                )

    def _check_dataset(self, key: str, name: str) -> None:
        require(
            name in self.datasets,
            key,
            name,
            f"no such data set; declared are {', '.join(sorted(self.datasets))}",
        )

    def _check_base(self) -> None:
        if self.base.tower is not None and not self.resolution.miniature:
            raise ConfigError(
                f"base={self.base.name}: makes a miniature tower, but resolution="
                f"{self.resolution.name} is CLIP's own; take base=none"
            )
        if self.base.language is not None and self.base.language_start == "random":
            require(
                self.model.base_lr is not None,
                "model.base_lr",
                None,
                f"base={self.base.name} makes the language model from nothing and needs it",
            )
        if self.until == "base":
            require(
                self.base.language is not None or self.base.tower is not None,
                "until",
                self.until,
                f"base={self.base.name} makes nothing; take base=mini",
            )

    def _check_budget(self) -> None:
        """Dollars can only be counted where an hour has a price, were it a zero that is meant."""
        cluster = self.cluster
        has_price = cluster.counted_usd_per_node_hour or cluster.free
        if self.budget.usd is not None and not has_price:
            raise ConfigError(
                f"budget.usd={shown(self.budget.usd)}: cluster={cluster.name} has no price; set "
                "cluster.usd_per_node_hour, or take budget.node_hours"
            )

    def _check_batch(self) -> None:
        devices = self.cluster.stage_devices or self.cluster.devices_per_node or 1
        recipes = (("batch", self.batch, self.nodes), ("align", self.align, self.align.nodes))
        for prefix, recipe, nodes in recipes:
            if recipe.micro_batch_size is None:
                continue  # packs are made of whatever samples a step has
            gradient_accumulation_steps(
                global_batch_size=recipe.global_batch_size,
                micro_batch_size=recipe.micro_batch_size,
                data_parallel_size=nodes * devices,
                prefix=prefix,
            )
        num_patches = (self.resolution.pixels // self.resolution.patch_size) ** 2
        require(
            self.batch.max_seq_len > num_patches,
            "batch.max_seq_len",
            self.batch.max_seq_len,
            f"a picture alone takes {num_patches} tokens at resolution={self.resolution.name}",
        )
        require(
            self.batch.max_seq_len <= self.model.max_position_embeddings,
            "batch.max_seq_len",
            self.batch.max_seq_len,
            f"model={self.model.name} has {self.model.max_position_embeddings} positions",
        )


FITTING = {
    "resolutions": {True: "32px or 48px", False: "224px or 336px"},
    "data_mixes": {True: "mini, mini_text or mini_short", False: "llava80k or llava80k_sharegpt"},
    "aligns": {True: "mini or mini_plain", False: "paper"},
    "evaluations": {True: "mini or mini_dev", False: "paper or one of its benchmarks"},
}
"""Group options that go with a miniature (True) and with a full-size model (False)."""


def check_study_name(key: str, name: str) -> None:
    """Refuse a name that is no plain folder name."""
    require(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) is not None,
        key,
        shown(name) or "''",
        "must be 1 to 100 letters, digits, '_', '-' or '.', and begin with a letter or digit",
    )
