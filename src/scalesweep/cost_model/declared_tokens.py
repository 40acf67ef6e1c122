"""Token statistics of data that nobody has read yet: published figures, and assumptions. Pure.

A file that is not named here has none: it is counted when it is read, and until then nothing is
said of stages that work on it. What is an assumption says so; they stand in docs/costs.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scalesweep.benchmark_options import BY_LETTERS, PICTURES, option_values
from scalesweep.cost_model.table4 import TEXT_TOKENS as LLAVA_TEXT_TOKENS
from scalesweep.cost_model.token_statistics import DECLARED, TokenStatistics
from scalesweep.specs import (
    BenchmarkSpec,
    DataSourceSpec,
    DataSpec,
    GenerateSpec,
    Method,
    TrainingSpec,
)

CHARACTERS_PER_TOKEN = 4.3
"""Of English by LLaMA's tokenizer; an assumption, +-8 %."""
SYSTEM_TOKENS, ROUND_TOKENS = 36, 9
"""Of the template vicuna_v1: the system prompt with BOS, and what is around a round."""

# LLaVA-Instruct-80K: 80,000 samples of a picture and 2.77 rounds of 57.3 + 372.1 characters, which
# with the JSON around them is the size of its file.
LLAVA_SAMPLES, LLAVA_ROUNDS, LLAVA_ANSWER_CHARACTERS = 80_000, 2.77, 372.1
LLAVA_TEXT_DEVIATION = 140.5
"""Standard deviation of a sample's text: assumed, such that the mean longest of 4, 8 and 16 samples
at 336 px are the published 1,067, 1,132 and 1,192 tokens (benchmarks/length_statistics.py)."""
OPEN_ANSWER_TOKENS = round(LLAVA_ANSWER_CHARACTERS / CHARACTERS_PER_TOKEN + 1)
"""With its end: a tuned model answers at the length that it was tuned on; an assumption."""

# blip_laion_cc_sbu_558k.json; a caption of BLIP is about 60 characters: an assumption, which 576
# patches of a picture outweigh. Template plain: BOS, caption, newline.
LCS_SAMPLES, LCS_CAPTION_TOKENS, LCS_CAPTION_DEVIATION = 558_128, 14, 5

# ShareGPT for the paper's Vicuna-65B: 159M tokens. Of Vicuna-33B's, 370M tokens are 125,000
# conversations. Cut between rounds into samples of at most 2,048 tokens: assumed log-normal lengths
# give their mean and deviation (benchmarks/length_statistics.py).
SHAREGPT_TOKENS, SHAREGPT_CONVERSATION_TOKENS = 159e6, 370e6 / 125e3
SHAREGPT_SAMPLE_TOKENS, SHAREGPT_SAMPLE_DEVIATION, SHAREGPT_SUPERVISED = 1478, 489, 1154

QUESTIONS: Mapping[str, int] = {
    "llava_bench": 60,
    "llava_bench_coco": 90,
    "mm_vet": 218,
    "mmbench": 4377,  # rows of dev_20230712: every question in up to four orders of its options
    "vicuna80": 80,
    "mmlu": 14_042,
}
"""In the official files."""
# Assumptions, +-30 %: nobody has published them by LLaMA's tokenizer.
QUESTION_TOKENS: Mapping[str, int] = {
    "llava_bench": 15,
    "llava_bench_coco": 15,
    "mm_vet": 15,
    "mmbench": 80,
    "vicuna80": 35,
}
"""Without template and picture."""
ANSWER_TOKENS: Mapping[str, int] = {
    "llava_bench": OPEN_ANSWER_TOKENS,
    "llava_bench_coco": OPEN_ANSWER_TOKENS,
    "mm_vet": OPEN_ANSWER_TOKENS,
    "mmbench": 3,
    "vicuna80": 300,
}
MMLU_QUESTION_TOKENS, MMLU_SHOT_TOKENS = 100, 110


@dataclass(frozen=True, kw_only=True)
class _Lengths:
    """Of the samples of one file."""

    num_samples: float
    text: float
    variance: float = 0.0
    supervised: float = 0.0
    pictured: bool = True


def declared_training(spec: TrainingSpec, data: Mapping[str, DataSpec]) -> TokenStatistics | None:
    """Of a training stage's samples; None where a file of it is not known.

    data: its data sets by name; what a miniature generator draws is among their parameters.
    """
    files = [_training_file(part, spec, data.get(part.dataset)) for part in spec.data]
    return _together(files)


def declared_questions(
    benchmarks: Sequence[BenchmarkSpec], data: Mapping[str, DataSpec], *, asks: GenerateSpec | None
) -> TokenStatistics | None:
    """Of the questions of benchmarks; asks: who answers them (None: only their number matters)."""
    return _together([_benchmark(each, data.get(each.dataset), asks) for each in benchmarks])


def _together(files: Sequence[_Lengths | None]) -> TokenStatistics | None:
    known = [one for one in files if one is not None and one.num_samples > 0]
    if len(known) < len(files) or not known:
        return None
    pictured = [one for one in known if one.pictured]
    return TokenStatistics(
        num_samples=round(sum(one.num_samples for one in known)),
        text_tokens=round(sum(one.num_samples * one.text for one in known)),
        squared_text_tokens=round(
            sum(one.num_samples * (one.text**2 + one.variance) for one in known)
        ),
        pictures=round(sum(one.num_samples for one in pictured)),
        pictured_text_tokens=round(sum(one.num_samples * one.text for one in pictured)),
        supervised=round(sum(one.num_samples * one.supervised for one in known)),
        source=DECLARED,
    )


def _training_file(
    part: DataSourceSpec, spec: TrainingSpec, data: DataSpec | None
) -> _Lengths | None:
    """Of one file's samples, of the first max_items where that is set."""
    if data is None:
        return None
    drawn = data.generator is not None
    found = _generated(part.file, spec, data) if drawn else _published(part)
    if found is None or part.max_items is None or part.on_long_item == "split":
        return found
    return replace(found, num_samples=min(found.num_samples, part.max_items))


def _published(part: DataSourceSpec) -> _Lengths | None:
    if part.file == "llava_instruct_80k.json":
        return _Lengths(
            num_samples=LLAVA_SAMPLES,
            text=LLAVA_TEXT_TOKENS,
            variance=LLAVA_TEXT_DEVIATION**2,
            supervised=LLAVA_ROUNDS * (LLAVA_ANSWER_CHARACTERS / CHARACTERS_PER_TOKEN + 1),
        )
    if part.file == "blip_laion_cc_sbu_558k.json":
        return _Lengths(
            num_samples=LCS_SAMPLES,
            text=LCS_CAPTION_TOKENS + 2,
            variance=LCS_CAPTION_DEVIATION**2,
            supervised=LCS_CAPTION_TOKENS + 1,
        )
    if part.file == "sharegpt_clean.json" and part.on_long_item == "split":
        conversations = SHAREGPT_TOKENS / SHAREGPT_CONVERSATION_TOKENS
        share = 1.0 if part.max_items is None else min(part.max_items / conversations, 1.0)
        return _Lengths(
            num_samples=share * SHAREGPT_TOKENS / SHAREGPT_SAMPLE_TOKENS,
            text=SHAREGPT_SAMPLE_TOKENS,
            variance=SHAREGPT_SAMPLE_DEVIATION**2,
            supervised=SHAREGPT_SUPERVISED,
            pictured=False,
        )
    return None


# What follows was counted: mini_train, mini_short, mini_test and the first 8,000 conversations of
# mini_language by the miniature's own tokenizer, the only one that these generators are made for.
def _generated(file: str, spec: TrainingSpec, data: DataSpec) -> _Lengths | None:
    """Of what a miniature generator writes into one file."""
    drawn = data.parameters
    if spec.method is Method.tower:
        return _Lengths(num_samples=drawn.get("num_pictures", 0), text=0, supervised=1)
    if data.generator == "language" and file == "text.json":
        found = _Lengths(
            num_samples=drawn["num_conversations"],
            text=60.56,
            variance=22.5,
            supervised=59.56,
            pictured=False,
        )
    elif data.generator != "pictures":
        return None
    elif file == "captions.json":
        found = _Lengths(
            num_samples=drawn["num_pictures"], text=11.15, variance=22.1, supervised=10.15
        )
    elif file == "instruct.json":
        turns = drawn["turns"]
        found = _Lengths(
            num_samples=drawn["num_pictures"],
            text=10.69 * turns,
            variance=2.05 * turns,
            supervised=2.128 * turns,
        )
    elif file == "text.json":
        turns = drawn["turns"]
        found = _Lengths(
            num_samples=drawn["num_text"],
            text=10.24 * turns,
            variance=0.18 * turns,
            supervised=2.483 * turns,
            pictured=False,
        )
    else:
        return None
    if spec.template not in ("mini", "plain"):
        # Another model's template has its words around each round, and a system prompt.
        around = SYSTEM_TOKENS + ROUND_TOKENS * drawn.get("turns", 1)
        return replace(found, text=found.text + around)
    return found


def _benchmark(
    asked: BenchmarkSpec, data: DataSpec | None, asks: GenerateSpec | None
) -> _Lengths | None:
    options = option_values(asked.name, asked.options)
    pictured = asked.name in PICTURES and (asks is None or asks.tower is not None)
    if asked.name in ("mini_vqa", "mini_text"):
        return _mini_benchmark(asked.name, data, pictured=pictured)
    num_questions = QUESTIONS[asked.name]
    if asked.name in BY_LETTERS:  # asked without a template; one look gives the likeliest letter
        text = MMLU_QUESTION_TOKENS + options["shots"] * MMLU_SHOT_TOKENS
        return _Lengths(num_samples=num_questions, text=text, supervised=1, pictured=False)
    limit = ANSWER_TOKENS[asked.name] if asks is None else asks.max_new_tokens
    return _Lengths(
        num_samples=num_questions,
        text=SYSTEM_TOKENS + ROUND_TOKENS + QUESTION_TOKENS[asked.name],
        supervised=min(ANSWER_TOKENS[asked.name], limit),
        pictured=pictured,
    )


def _mini_benchmark(name: str, data: DataSpec | None, *, pictured: bool) -> _Lengths | None:
    if data is None or data.generator != "questions":
        return None
    if name == "mini_text":
        number = data.parameters["num_text_questions"]
        return _Lengths(
            num_samples=number, text=7.755, variance=0.18, supervised=2.491, pictured=False
        )
    number = data.parameters["num_questions"]
    return _Lengths(
        num_samples=number, text=8.54, variance=2.29, supervised=2.136, pictured=pictured
    )
