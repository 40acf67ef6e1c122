"""How far losses and weights of one training are apart on different ranks and ZeRO stages.

python -m tests.train.exactness prints the tables of docs/trainer.md (about ten minutes on two
cores). The tests in test_world_sizes.py and test_resume.py hold a part of it to the tolerances.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from scalesweep.launch.workers import Workers
from scalesweep.specs import LoraSpec, Method, Precision
from tests.train.small_stages import LORA, Ended, Lab, SmallStage, make_data, optim_spec

LOSS_TOLERANCE = 5e-6
"""Of a loss, relative, in fp32: sums are taken in another order, and 8 steps carry that on."""
WEIGHT_TOLERANCE = 1e-5
"""Of a published weight, absolute, in fp32. One step changes a weight by up to 3e-3."""
BF16_TOLERANCE = {0: 1e-2, 1: 1e-2, 2: 1e-2, 3: 1e-1}
"""Of a loss, relative, with weights in bf16 (one digit is 2^-8); by ZeRO stage. Under ZeRO-3
DeepSpeed has a linear layer of its own, which rounds once more before it adds the bias."""

# Steps of 3 samples leave some ranks a dummy; a third of the samples have no picture. The large
# epsilon makes a step depend on the size of the gradient, which AdamW otherwise hides; some
# gradients are clipped at 20, others not.
OPTIM = optim_spec(weight_decay=0.1, max_grad_norm=20.0, eps=1e-2)
CHANGES: Mapping[str, Any] = {"global_batch_size": 3, "optim": OPTIM}
WITHOUT_DROPOUT = replace(LORA, dropout=0.0)
"""Dropout draws other numbers on other ranks."""
STAGES = {Method.full: (0, 1, 2, 3), Method.lora: (0, 1, 2, 3), Method.qlora: (0, 1, 2)}
RANKS = (1, 2, 4)
STOPPED_AT = 4
MOVES = {
    Method.full: [((2, 3), (1, 0)), ((1, 0), (2, 2)), ((2, 2), (4, 3)), ((4, 1), (2, 0))],
    Method.lora: [((1, 0), (2, 3)), ((2, 2), (1, 0)), ((2, 3), (4, 1)), ((4, 0), (2, 2))],
    Method.qlora: [((1, 0), (2, 2)), ((2, 2), (1, 1)), ((2, 1), (4, 0)), ((4, 2), (2, 0))],
}
"""(ranks, ZeRO stage) that a run is stopped on, and that it goes on by."""


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Largest differences between two trainings."""

    loss: float
    """Relative, of all steps"""
    weight: float
    """Absolute, of all published weights"""

    def is_tolerable(self) -> bool:
        return self.loss <= LOSS_TOLERANCE and self.weight <= WEIGHT_TOLERANCE


def apart(losses: Mapping[int, float], run: Ended, reference: Ended) -> Apart:
    """losses: of a run in all its attempts; run: the last of them."""
    expected = reference.losses
    assert list(losses) == list(expected)
    (file,) = reference.output.glob("*model.safetensors")
    weights, others = load_file(run.output / file.name), load_file(file)
    assert set(weights) == set(others)
    return Apart(
        loss=max(abs(losses[step] - loss) / abs(loss) for step, loss in expected.items()),
        weight=max(float((weights[name] - others[name]).abs().max()) for name in others),
    )


def small_stage(
    lab: Lab, root: Path, method: Method, *, num_ranks: int, zero_stage: int, **changes: Any
) -> SmallStage:
    """One sample a micro-batch, without dropout; ZeRO-3 really splits (runner_of)."""
    adapters: LoraSpec | None = None if method is Method.full else WITHOUT_DROPOUT
    given = {"lora": adapters, "micro_batch_size": 1, **CHANGES, **changes}
    return lab.stage(root, method, num_ranks=num_ranks, zero_stage=zero_stage, **given)


def runner_of(zero_stage: int) -> str | None:
    return "tests.train.sharded" if zero_stage == 3 else None


def trained(lab: Lab, root: Path, method: Method, *, num_ranks: int, zero_stage: int) -> Ended:
    stage = small_stage(lab, root, method, num_ranks=num_ranks, zero_stage=zero_stage)
    return stage.attempt(runner=runner_of(zero_stage))


def moved(
    lab: Lab, root: Path, method: Method, *, before: tuple[int, int], after: tuple[int, int]
) -> tuple[dict[int, float], Ended]:
    """Stopped after half of its steps on one layout, ended on another: all losses, the end."""
    stage = small_stage(lab, root, method, num_ranks=before[0], zero_stage=before[1])
    first = stage.attempt(asked_to_stop=STOPPED_AT)
    stage.execution = replace(
        stage.execution, devices_per_node=after[0], node_devices=4, zero_stage=after[1]
    )
    second = stage.attempt(runner=runner_of(after[1]))
    assert list(second.losses) == list(range(STOPPED_AT + 1, 9)), second.log
    return {**first.losses, **second.losses}, second


def in_bf16(lab: Lab, root: Path, *, zero_stage: int) -> SmallStage:
    """Full fine-tuning with weights in bf16; weight decay shows a step that was not asked for."""
    optim = replace(OPTIM, weight_decay=0.5, warmup_steps=0)
    return small_stage(
        lab,
        root,
        Method.full,
        num_ranks=1,
        zero_stage=zero_stage,
        precision=Precision.bf16,
        optim=optim,
    )


def main() -> None:
    """Print both tables as markdown."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lab = Lab(workers=Workers(), data=make_data(root / "data"))
        references = {
            method: trained(lab, root / f"{method}", method, num_ranks=1, zero_stage=0)
            for method in STAGES
        }
        print("| method | ranks | ZeRO | loss, relative | weight, absolute |")
        print("|---|---|---|---|---|")
        for method, stages in STAGES.items():
            for num_ranks in RANKS:
                for zero_stage in stages:
                    name = root / f"{method}-{num_ranks}-{zero_stage}"
                    run = trained(lab, name, method, num_ranks=num_ranks, zero_stage=zero_stage)
                    found = apart(run.losses, run, references[method])
                    print(f"| {method} | {num_ranks} | {zero_stage} | {found.loss:.1e} | "
                          f"{found.weight:.1e} |", flush=True)  # fmt: skip
        print()
        print("| method | stopped on | goes on by | loss, relative | weight, absolute |")
        print("|---|---|---|---|---|")
        for method, moves in MOVES.items():
            for before, after in moves:
                name = root / f"{method}-{before}-{after}"
                losses, run = moved(lab, name, method, before=before, after=after)
                found = apart(losses, run, references[method])
                print(f"| {method} | {_words(before)} | {_words(after)} | {found.loss:.1e} | "
                      f"{found.weight:.1e} |", flush=True)  # fmt: skip


def _words(layout: tuple[int, int]) -> str:
    return f"{layout[0]} x ZeRO-{layout[1]}"


if __name__ == "__main__":
    sys.exit(main())
