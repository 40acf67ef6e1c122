"""One GPU: our training step against LLaVA's recipe, at the paper's shapes, with random weights.

    python -m benchmarks.gpu [--models 7b,13b,33b] [--methods lora,qlora,full] [--quick] [--mix]
                             [--minutes N] [--output FILE.json]

Needs torch, transformers and peft; scalesweep is taken from src/ next to this folder and need not
be installed. bitsandbytes (qlora) and DeepSpeed are used where they are, and reported missing where
not. Without a GPU, or with --self-check, the same code runs end to end on tiny shapes in fp32 and
both recipes must give the same losses on the same samples; nothing about GPUs is measured then.

What is measured is in gpu_recipes.py: steps of 16 samples with the lengths of LLaVA-80K at 336 px,
packed by us, padded by LLaVA's recipe. Ours tries which activations to recompute and how many
tokens to pack; LLaVA's recipe tries micro-batches of 4, 8 and 16. The best of each is compared. MFU
counts what the mathematics asks for of unpadded samples (scalesweep.models.flops); HFU what is
computed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu_recipes import LLAVA, OURS, Job, Measured, Mode, run
from scalesweep.models.devices import peak_bf16_flops
from scalesweep.specs import (
    LanguageModelSpec,
    LoraSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)

ROOT = Path(__file__).resolve().parents[1]
MODELS, METHODS = ("7b", "13b", "33b"), ("lora", "qlora", "full")
GOAL_SPEED_UP, GOAL_MFU = 1.5, 0.50
"""Samples per second against LLaVA's recipe; MFU of LoRA at 13b."""
SAME_LOSS = 1e-4
"""Relative, in fp32, of every step of the self-check."""
SAME_FIRST_LOSS = 5e-3
"""Relative, in bf16: of the first step, before the rounding of updates."""

Result = dict[str, Any]
"""Of one model and method: model, method, missing, and recipe -> [Measured]."""


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    if arguments.self_check or not torch.cuda.is_available():
        return _self_check(arguments.output)
    results = []
    deadline = time.time() + 60 * arguments.minutes
    for model in arguments.models:
        for method in arguments.methods:
            print(f"{model} {method}", flush=True)
            results.append(_measure(model, method, arguments, deadline=deadline))
            print(table(results[-1:], everything=True), flush=True)
            _write(arguments.output, results)
    print("\n" + table(results))
    print(goals(results))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    def names(known: Sequence[str]) -> Any:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if wrong := [name for name in chosen if name not in known]:
                raise argparse.ArgumentTypeError(f"{wrong[0]}: choose of {', '.join(known)}")
            return chosen

        return parse

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=names((*MODELS, "65b", "70b")), default=list(MODELS))
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="fewer modes and steps: minutes")
    parser.add_argument("--mix", action="store_true", help="with ShareGPT's long text, half of it")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin nothing after so many; what was measured by then is shown",
    )
    parser.add_argument("--output", type=Path, help="write everything measured as JSON")
    parser.add_argument("--self-check", action="store_true", help="tiny shapes on the CPU")
    return parser.parse_args(words)


def training_spec(model: str, method: str) -> TrainingSpec:
    """A tune stage at 336 px, shapes as in conf/; read without Hydra, which may be missing."""
    shape = _yaml(f"model/{model}.yaml")["model"]
    tower = _yaml("resolution/336px.yaml")
    lora = _yaml("lora/all_linear.yaml")
    lr = _yaml(f"tuning/{method}.yaml")["optim"]["lr"]
    names = LanguageModelSpec.__dataclass_fields__
    return _spec(
        Method(method),
        model=LanguageModelSpec(**{k: v for k, v in shape.items() if k in names}),
        tower=VisionTowerSpec(
            name=f"clip_{tower['name']}",
            image_size=tower["pixels"],
            **{k: tower[k] for k in ("hidden_size", "intermediate_size", "num_layers", "num_heads",
                                     "patch_size", "feature_layer", "weights")},
        ),
        lora=LoraSpec(
            rank=lora["rank"],
            alpha=2.0 * lora["rank"],
            dropout=lora["dropout"],
            targets=lora["targets"],
        ),
        lr=lr,
        precision=Precision.bf16,
    )  # fmt: skip


def _yaml(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "conf" / name).read_text(encoding="utf-8"))
    return loaded


def _spec(
    method: Method,
    *,
    model: LanguageModelSpec,
    tower: VisionTowerSpec,
    lora: LoraSpec,
    lr: float,
    precision: Precision,
) -> TrainingSpec:
    return TrainingSpec(
        method=method,
        model=model,
        tower=tower,
        blind=False,
        data=[],
        on_broken_item="stop",
        template=model.template,
        prompt_loss_weight=0.0,
        optim=OptimSpec(
            lr=lr, schedule="constant", warmup_steps=0, warmup_ratio=None, weight_decay=0.0,
            betas=[0.9, 0.999], eps=1e-8, max_grad_norm=1.0, epochs=None, max_steps=1_000,
        ),
        global_batch_size=16,
        max_seq_len=2048,
        precision=precision,
        seed=1,
        lora=None if method is Method.full else lora,
    )  # fmt: skip


def modes(recipe: str, *, quick: bool) -> list[Mode]:
    """What is tried, those that need least memory first."""
    if recipe == LLAVA:
        return [Mode(micro_batch_size=size, deterministic=False) for size in (4, 8, 16)]
    kept = ("full", "selective") if quick else ("full", "selective", "none")
    sizes = (4096, 8192) if quick else (2048, 4096, 8192, 16384)
    return [
        Mode(gradient_checkpointing=how, micro_batch_tokens=size) for how in kept for size in sizes
    ]


def variations() -> list[Mode]:
    """What is changed about the best of our modes, one thing at a time."""
    found = [Mode(deterministic=False), Mode(compile=True), Mode(compile=True, deterministic=False)]
    found += [Mode(attention=kernel) for kernel in ("flash_attn", "varlen", "sdpa")]
    if importlib.util.find_spec("deepspeed") is not None:
        found.append(Mode(deepspeed=True))
    return found


def _measure(model: str, method: str, arguments: argparse.Namespace, *, deadline: float) -> Result:
    result: Result = {"model": model, "method": method, "missing": "", OURS: [], LLAVA: []}
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        return {**result, "missing": "bitsandbytes is not installed"}
    for recipe in (LLAVA, OURS):
        job = Job(
            spec=training_spec(model, method),
            recipe=recipe,
            device="cuda",
            modes=modes(recipe, quick=arguments.quick),
            best_of=variations() if recipe == OURS and not arguments.quick else (),
            steps=3 if arguments.quick else 5,
            mix=arguments.mix,
            deadline=deadline,
        )
        result[recipe] = _in_a_process(job)
    return result


def _in_a_process(job: Job) -> list[Result]:
    """A job's results as JSON has them; that a process died (host memory, driver) is one too."""
    with tempfile.TemporaryDirectory() as folder:
        job_file, result_file = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(job.to_json()), encoding="utf-8")
        result_file.write_text("[]", encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_recipes", str(job_file), str(result_file)],
            cwd=ROOT,
            # One GPU: Trainer would divide a batch among all that it sees.
            env={
                "CUDA_VISIBLE_DEVICES": "0",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            check=False,
        )
        found: list[Result] = json.loads(result_file.read_text(encoding="utf-8"))
    if ended.returncode:
        died = f"the process ended with status {ended.returncode}"
        found.append(as_result(Measured(mode=Mode(), fits=True, error=died)))
    return found


def as_result(measured: Measured) -> Result:
    """A measurement as it is in the JSON file."""
    loaded: Result = json.loads(json.dumps(measured.to_json()))
    return loaded


def best(measured: Sequence[Result]) -> Result | None:
    """The fastest mode that ran."""
    ran = [one for one in measured if one["fits"] and not one["error"]]
    return max(ran, key=lambda one: float(one["samples_per_second"]), default=None)


def _rows(results: Sequence[Result], *, everything: bool) -> Iterator[list[str]]:
    for result in results:
        head = [result["model"], result["method"]]
        if result["missing"]:
            yield [*head, result["missing"], *[""] * 8]
            continue
        baseline = best(result[LLAVA])
        for recipe in (LLAVA, OURS):
            winner = best(result[recipe])
            for one in result[recipe]:
                if everything or one is winner:
                    yield [*head, recipe, str(Mode(**one["mode"])), *_figures(one, baseline)]
            if winner is None:
                yield [*head, recipe, _why(result[recipe]), *[""] * 7]


def _why(measured: Sequence[Result]) -> str:
    errors = [one["error"] for one in measured if one["error"]]
    return errors[0] if errors else "does not fit"


def _figures(one: Result, baseline: Result | None) -> list[str]:
    if one["error"] or not one["fits"]:
        return [one["error"] or "does not fit", *[""] * 6]
    low, high = one["spread"]
    speed = float(one["samples_per_second"])
    against = "" if baseline is None else f"{speed / baseline['samples_per_second']:.2f}"
    share = [f"{one[name]:.1%}" if one[name] is not None else "-" for name in ("mfu", "hfu")]
    return [
        f"{speed:.2f} ({low:.2f} to {high:.2f})", f"{one['tokens_per_second']:.0f}", against,
        *share, f"{one['peak_allocated_gib']:.1f} / {one['peak_reserved_gib']:.1f}",
        f"{one['engine']}, {one['kernel']}",
    ]  # fmt: skip


COLUMNS = (
    "model",
    "method",
    "recipe",
    "mode",
    "samples/s (slowest to fastest step)",
    "tokens/s",
    "times LLaVA's",
    "MFU",
    "HFU",
    "peak GiB (allocated / reserved)",
    "engine, attention",
)


def table(results: Sequence[Result], *, everything: bool = False) -> str:
    """Markdown: the best mode of each recipe, or every mode."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results, everything=everything)]
    return "\n".join(lines)


def goals(results: Sequence[Result]) -> str:
    """The goals beside what was reached; what was not measured is said."""
    lines = []
    for result in results:
        ours, baseline = best(result[OURS]), best(result[LLAVA])
        name = f"{result['model']} {result['method']}"
        if ours is None or baseline is None:
            lines.append(f"{name}: not compared")
            continue
        ratio = ours["samples_per_second"] / baseline["samples_per_second"]
        lines.append(f"{name}: {ratio:.2f} times the samples/s of LLaVA's recipe (goal >= "
                     f"{GOAL_SPEED_UP}: {_reached(ratio >= GOAL_SPEED_UP)})")  # fmt: skip
        if name == "13b lora":
            share = ours["mfu"]
            lines.append(
                f"{name}: MFU is not known, since this device's peak is not"
                if share is None
                else f"{name}: MFU {share:.1%} (goal >= {GOAL_MFU:.0%}: "
                f"{_reached(share >= GOAL_MFU)})"
            )
        gap = loss_gap(result, first=True)
        if not gap <= SAME_FIRST_LOSS:
            lines.append(f"{name}: NOT COMPARABLE: first losses differ by {gap:.1e}")
    return "\n".join(lines)


def _reached(yes: bool) -> str:
    return "reached" if yes else "MISSED"


def loss_gap(result: Result, *, first: bool) -> float:
    """Largest relative difference of losses between all modes that ran, of both recipes."""
    ran = [one["losses"] for recipe in (OURS, LLAVA) for one in result[recipe]
           if one["fits"] and not one["error"]]  # fmt: skip
    if not ran:
        return math.nan
    columns = list(zip(*ran, strict=True))[: 1 if first else None]
    return max((max(column) - min(column)) / abs(min(column)) for column in columns)


def _write(path: Path | None, results: Sequence[Result]) -> None:
    if path is None:
        return
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if gpu else ""
    document = {
        "device": name,
        "device_memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if gpu else 0,
        "peak_bf16_flops": peak_bf16_flops(name),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "results": results,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


PACKAGES = ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes",
            "flash-attn")  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _self_check(output: Path | None) -> int:
    """Both recipes on tiny shapes in fp32: they run, and their losses are the same."""
    results, failures = [], list[str]()
    for method in METHODS:
        result: Result = {"model": "tiny", "method": method, "missing": "", OURS: [], LLAVA: []}
        results.append(result)
        if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
            result["missing"] = "bitsandbytes is not installed"
            continue
        for recipe in (LLAVA, OURS):
            result[recipe] = [as_result(one) for one in run(_tiny_job(method, recipe))]
            failures += [f"{method}, {recipe}: {one['error']}" for one in result[recipe]
                         if one["error"]]  # fmt: skip
        gap = loss_gap(result, first=False)
        same = gap <= SAME_LOSS
        print(f"{method}: losses of all modes of both recipes differ by {gap:.1e} at most "
              f"(allowed {SAME_LOSS:.0e}): {'same' if same else 'NOT THE SAME'}")  # fmt: skip
        if not same:
            failures.append(f"{method}: losses differ by {gap:.1e}")
    print("\n" + table(results, everything=True))
    print("\nself-check on the CPU with tiny shapes in fp32: the figures above only show that the "
          "code runs. NOTHING ABOUT GPUS WAS MEASURED.")  # fmt: skip
    _write(output, results)
    for failure in failures:
        print(f"self-check failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _tiny_job(method: str, recipe: str) -> Job:
    spec = _spec(
        Method(method),
        model=LanguageModelSpec(
            name="tiny", hidden_size=64, intermediate_size=128, num_layers=2, num_heads=4,
            num_kv_heads=2, vocab_size=512, max_position_embeddings=2048, template="vicuna_v1",
            weights="random", tokenizer="random",
        ),
        tower=VisionTowerSpec(
            name="tiny", hidden_size=32, intermediate_size=64, num_layers=3, num_heads=2,
            patch_size=14, image_size=56, feature_layer=-2, weights="random",
        ),
        # No dropout: it would fall on other places of a packed row.
        lora=LoraSpec(rank=4, alpha=8.0, dropout=0.0,
                      targets=_yaml("lora/all_linear.yaml")["targets"]),
        lr=1e-3,
        precision=Precision.fp32,
    )  # fmt: skip
    if recipe == LLAVA:
        tried = [Mode(micro_batch_size=2, deterministic=False)]
    else:
        tried = [
            Mode(gradient_checkpointing=how, micro_batch_tokens=256)
            for how in ("full", "selective", "none")
        ]
    job = Job(spec=spec, recipe=recipe, device="cpu", modes=tried, samples_per_step=4, steps=2,
              mix=True, shrink=16)  # fmt: skip
    return replace(job, best_of=[Mode(attention="sdpa")] if recipe == OURS else [])


if __name__ == "__main__":
    sys.exit(main())
