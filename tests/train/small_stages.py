"""Small training stages on miniature data: what they are told, and running them in processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scalesweep.config.paths import miniature_identity, miniature_path
from scalesweep.data.miniature import generate
from scalesweep.launch.rank import EXIT_DONE, EXIT_INTERRUPTED, RankTask
from scalesweep.launch.workers import Workers, free_port
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.rundir import AttemptDir, StageDir, Store, output_files, read_json, write_json
from scalesweep.specs import (
    DataSourceSpec,
    LanguageModelSpec,
    LoraSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)

PATHS = {
    "language_model": miniature_path("mini_xs"),
    "tokenizer": miniature_path("tokenizer"),
    "vision_tower": miniature_path("tower_32px"),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = LoraSpec(rank=4, alpha=8.0, dropout=0.1, targets=LINEAR)
PICTURES = {"seed": 5, "num_pictures": 24, "num_text": 12, "turns": 2, "density": "sparse"}
CAPTIONS = DataSourceSpec(dataset="train", file="captions.json", image_folder="images")
INSTRUCT = DataSourceSpec(dataset="train", file="instruct.json", image_folder="images")
TEXT = DataSourceSpec(dataset="train", file="text.json")
SOURCES = {
    Method.tower: [CAPTIONS],
    Method.projector: [CAPTIONS],
    Method.language: [TEXT],
}


def make_data(folder: Path) -> Path:
    """24 pictures with two questions each, and 12 conversations without one."""
    folder.mkdir(parents=True)
    generate("pictures", PICTURES, folder, tick=lambda _: None)
    return folder


def model_spec(name: str = "mini_xs", **changes: Any) -> LanguageModelSpec:
    spec = LanguageModelSpec(
        name=name,
        hidden_size=32,
        intermediate_size=96,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        vocab_size=132,
        max_position_embeddings=256,
        template="mini",
        weights=miniature_identity("mini_xs"),
        tokenizer=miniature_identity("tokenizer"),
    )
    return replace(spec, **changes)


def tower_spec(**changes: Any) -> VisionTowerSpec:
    spec = VisionTowerSpec(
        name="clip_32px",
        hidden_size=64,
        intermediate_size=192,
        num_layers=4,
        num_heads=4,
        patch_size=8,
        image_size=32,
        feature_layer=-2,
        weights=miniature_identity("tower_32px"),
    )
    return replace(spec, **changes)


def optim_spec(**changes: Any) -> OptimSpec:
    spec = OptimSpec(
        lr=3e-3,
        schedule="cosine",
        warmup_steps=2,
        warmup_ratio=None,
        weight_decay=0.0,
        betas=[0.9, 0.999],
        eps=1e-8,
        max_grad_norm=1.0,
        epochs=None,
        max_steps=8,
    )
    return replace(spec, **changes)


def training_spec(method: Method, **changes: Any) -> TrainingSpec:
    """8 steps of 8 samples; the mix of pictures and text where both are learned from."""
    spec = TrainingSpec(
        method=method,
        model=None if method is Method.tower else model_spec(),
        tower=None if method is Method.language else tower_spec(),
        blind=False,
        data=SOURCES.get(method, [INSTRUCT, TEXT]),
        on_broken_item="stop",
        template="mini",
        prompt_loss_weight=0.2 if method is Method.language else 0.0,
        optim=optim_spec(),
        global_batch_size=8,
        max_seq_len=256,
        precision=Precision.fp32,
        seed=3,
        lora=LORA if method in (Method.lora, Method.qlora) else None,
    )
    return replace(spec, **changes)


def run_ranks(workers: Workers, tasks: Sequence[RankTask], *, timeout_s: float = 120) -> list[int]:
    """Exit codes of one process per rank; minus the signal's number for a killed one.

    When one ends badly the others are killed, as the scheduler does.
    """
    processes = workers.start(tasks)
    until = time.monotonic() + timeout_s
    while any(process.exitcode is None for process in processes):
        bad = {process.exitcode for process in processes} - {None, EXIT_DONE, EXIT_INTERRUPTED}
        late = time.monotonic() > until
        if bad or late:
            for process in processes:
                process.kill()
        assert not late, f"the ranks of {tasks[0].ref} did not end within {timeout_s} s"
        time.sleep(0.01)
    return [process.exitcode for process in processes]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A finished attempt."""

    attempt: AttemptDir
    codes: Sequence[int]

    @property
    def log(self) -> str:
        return self.attempt.log.read_text("utf-8")

    @property
    def output(self) -> Path:
        """Published files; only of an attempt that ended well."""
        assert set(self.codes) == {0}, self.log
        return self.attempt.output

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for row in self.attempt.metric_rows() if "loss" in row]

    @property
    def losses(self) -> dict[int, float]:
        """Step -> loss."""
        return {row["step"]: row["loss"] for row in self.rows}

    @property
    def hashes(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in output_files(self.output).items()}

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.output / "training.json")


@dataclass(kw_only=True)
class SmallStage:
    """One training stage in a store of its own, tried as often as a test likes."""

    root: Path
    spec: TrainingSpec
    workers: Workers
    data: Path
    execution: Execution
    inputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def stage_spec(self) -> StageSpec:
        kind = {Method.tower: "base", Method.language: "base", Method.projector: "align"}
        return StageSpec(
            kind=StageKind(kind.get(self.spec.method, "tune")),
            label="small",
            recipe_version=1,
            identity=self.spec.to_identity(),
        )

    @property
    def stage(self) -> StageDir:
        return Store(self.root / "store").stage(self.stage_spec.ref)

    def attempt(
        self,
        *,
        killed_after: int | None = None,
        killed_in_save: bool = False,
        asked_to_stop: int | None = None,
        ranks: Sequence[int] | None = None,
        runner: str | None = None,
    ) -> Ended:
        """The next attempt, run to its end by one process per rank.

        killed_after: SIGKILL in that step, before it is told; asked_to_stop: SIGTERM in that step;
        killed_in_save: SIGKILL to rank zero while it completes the first checkpoint.
        ranks: which of them get the signal; all, unless told.
        runner: module that runs in place of the stage.
        """
        claimed = self.stage.attempt(len(self.stage.attempts()) + 1)
        claimed.path.mkdir(parents=True)
        write_json(self.stage.stage_file, self.stage_spec.to_json())
        write_json(claimed.execution_file, self.execution.to_json())
        world_size = self.execution.world_size
        step = killed_after or asked_to_stop
        if step is not None or killed_in_save:
            order = {
                "signal": signal.SIGTERM if asked_to_stop else signal.SIGKILL,
                "step": step,
                "ranks": list(ranks or range(world_size)),
                "in_save": killed_in_save,
            }
            write_json(claimed.path / "signal.json", order)
            runner = "tests.train.signalled"
        port = free_port()
        codes = run_ranks(
            self.workers,
            [
                RankTask(
                    store=self.root / "store",
                    ref=self.stage_spec.ref,
                    attempt=claimed.number,
                    inputs={"data:train": self.data, **self.inputs},
                    rank=rank,
                    world_size=world_size,
                    port=port,
                    started_at=0.0,
                    started_monotonic=0.0,
                    runner=runner,
                )
                for rank in range(world_size)
            ],
        )
        return Ended(attempt=claimed, codes=codes)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where small stages are made."""

    workers: Workers
    data: Path

    def stage(
        self,
        root: Path,
        method: Method,
        *,
        num_ranks: int = 1,
        zero_stage: int = 0,
        micro_batch_size: int = 2,
        micro_batch_tokens: int = 0,
        inputs: Mapping[str, Path] | None = None,
        gradient_checkpointing: str = "none",
        **changes: Any,
    ) -> SmallStage:
        execution = Execution(
            cluster="local",
            devices_per_node=num_ranks,
            node_devices=2,
            micro_batch_size=micro_batch_size,
            micro_batch_tokens=micro_batch_tokens,
            zero_stage=zero_stage,
            gradient_checkpointing=gradient_checkpointing,
            checkpoint_every_steps=2,
            paths=PATHS,
        )
        return SmallStage(
            root=root,
            spec=training_spec(method, **changes),
            workers=self.workers,
            data=self.data,
            execution=execution,
            inputs=inputs or {},
        )
