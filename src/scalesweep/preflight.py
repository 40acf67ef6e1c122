"""Data that lie outside the store are read and checked before anything of a study is started.

    python -m scalesweep.preflight CACHE < stages.json

A process of its own: checking takes a tokenizer and an image library, which the command line does
not import. Whatever a stage would stumble over later (a cut file, a missing or corrupt picture, a
conversation out of order, one that is too long) is found here, and what was read is kept in the
cache, so that no stage reads it twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesweep.errors import DataError, ScaleSweepError
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import StageKind, canonical_json
from scalesweep.rundir import Store, read_json, sha256_of

if TYPE_CHECKING:
    from scalesweep.evaluate.benchmarks.base import Benchmark

FAULTS = 2
"""Exit status when data are broken; anything else but 0 is a defect of the check."""
TEXTS = (".json", ".jsonl", ".tsv")
"""Files whose bytes are compared with the stock's; pictures are compared by size."""


def check_external_data(plan: Plan, todo: Sequence[PlannedStage], store: Store) -> None:
    """Refuse broken data that stages would read from outside the store; nothing stays behind.

    Tokenizers too, but for those whose bytes are declared.

    todo: stages that are not done.

    Raises:
        DataError: every fault, one line each, with file, item and defect.
    """
    roots = external_roots(plan)
    check_stock(plan, store)
    stages = [stage.to_json() for stage in todo if datasets_read(stage) & set(roots)]
    tokenizers = fetched_tokenizers(todo)
    if not stages and not tokenizers:
        return
    had_store, had_cache = store.root.exists(), store.cache.exists()
    ended = subprocess.run(
        [sys.executable, "-m", "scalesweep.preflight", str(store.cache)],
        input=json.dumps({"roots": roots, "stages": stages, "tokenizers": tokenizers}),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return
    if not had_cache:
        shutil.rmtree(store.cache, ignore_errors=True)
    if not had_store:
        shutil.rmtree(store.root, ignore_errors=True)
    said = ended.stderr.strip().splitlines() or [f"ended with status {ended.returncode}"]
    if ended.returncode != FAULTS:
        raise DataError(f"data could not be checked: {said[-1]}")
    raise DataError("\nscalesweep: ".join(said))


def check_stock(plan: Plan, store: Store) -> None:
    """Refuse files that changed since a data stage of the store took stock of them.

    Where nothing declares a file's hash its bytes are in no key: cells trained on the old and on
    the new ones would stand beside each other as one data set.

    Raises:
        DataError: a file is gone, or has another size or (but for pictures) other bytes.
    """
    roots = external_roots(plan)
    for stage in plan.stages:
        name = str(stage.spec.identity.get("dataset"))
        done = store.stage(stage.spec.ref).done() if name in roots else None
        if stage.spec.kind is not StageKind.data or done is None:
            continue
        output = store.stage(stage.spec.ref).attempt(done.attempt).output
        with contextlib.suppress(FileNotFoundError):  # damaged: it is run again
            for file, then in read_json(output / "external.json")["files"].items():
                path = Path(roots[name]) / file
                if not path.is_file() or _differs(path, then):
                    raise DataError(
                        f"data set {name}: {path} is not what {stage.spec.ref} took stock of; "
                        f"declare its hash in datasets.{name}.files, which makes it another data "
                        f"set, or delete {store.stage(stage.spec.ref).path} to take stock anew"
                    )


def _differs(path: Path, then: Mapping[str, Any]) -> bool:
    if path.stat().st_size != then["size"]:
        return True
    return path.suffix in TEXTS and sha256_of(path) != then["sha256"]


def external_roots(plan: Plan) -> dict[str, str]:
    """Data set -> its folder, for those that no stage of the plan makes."""
    return {
        role.removeprefix("data:"): path
        for stage in plan.stages
        if stage.spec.kind is StageKind.data
        for role, path in stage.execution.paths.items()
        if role.startswith("data:")
    }


def datasets_read(stage: PlannedStage) -> set[str]:
    """Data sets whose files a stage reads."""
    identity = stage.spec.identity
    if stage.spec.kind is StageKind.data:
        return {identity["dataset"]}
    return {entry["dataset"] for key in ("data", "benchmarks") for entry in identity.get(key, ())}


def fetched_tokenizers(todo: Sequence[PlannedStage]) -> list[tuple[str, str, int]]:
    """(what is declared, folder, vocabulary) of tokenizers that come from the hub, each once."""
    found: dict[tuple[str, str, int], None] = {}
    for stage in todo:
        model: Mapping[str, Any] = stage.spec.identity.get("model") or {}
        folder = stage.execution.paths.get("tokenizer")
        if folder and str(model.get("tokenizer", "")).startswith("hub:"):
            found[model["tokenizer"], folder, model["vocab_size"]] = None
    return list(found)


def tokenizer_faults(tokenizers: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    """One line for each that cannot be loaded, or knows tokens that its model has no row for."""
    for declared, folder, vocab_size in tokenizers:
        fault = _tokenizer_fault(Path(folder), vocab_size)
        if fault is not None:
            yield (
                f"model.tokenizer={declared}: {folder}: {fault}; fetch it again, or set "
                "model.tokenizer_path=DIR"
            )


def _tokenizer_fault(folder: Path, vocab_size: int) -> str | None:
    from transformers import AutoTokenizer

    from scalesweep.data.readers import IMAGE
    from scalesweep.data.tokenize import TextEncoder

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        TextEncoder(tokenizer)
        known = tokenizer.get_vocab()
    except Exception as error:  # each tokenizer's library has errors of its own
        return f"the tokenizer cannot be used: {' '.join(str(error).split())}"
    # <image> only marks places and is never looked up.
    beyond = {i: token for token, i in known.items() if i >= vocab_size and token != IMAGE}
    if beyond:
        first = min(beyond)
        return (
            f"is another model's: token {beyond[first]!r} has the number {first}, and the model "
            f"only {vocab_size} rows (model.vocab_size)"
        )
    return None


def faults(
    stages: Sequence[PlannedStage], roots: Mapping[str, Path], *, cache: Path
) -> Iterator[str]:
    """One line per distinct fault; stages that would read the same in the same way are one."""
    seen: set[str] = set()
    broken: set[str] = set()  # data sets with a fault: whatever else reads them would repeat it
    for stage in stages:
        read = datasets_read(stage) & set(roots) - broken
        what = _what_is_read(stage)
        if not read or what in seen:
            continue
        seen.add(what)
        try:
            CHECKS[stage.spec.kind](stage, roots, cache)
        except ScaleSweepError as error:
            broken |= read
            yield " ".join(str(error).splitlines())


def _what_is_read(stage: PlannedStage) -> str:
    identity = stage.spec.identity
    keys = ("data", "dataset", "parameters", "template", "method", "max_seq_len", "on_broken_item",
            "benchmarks", "blind")  # fmt: skip
    read: dict[str, Any] = {key: identity.get(key) for key in keys}
    tower: Mapping[str, Any] = identity.get("tower") or {}
    model = identity.get("model")
    tokenizer = model.get("tokenizer") if isinstance(model, Mapping) else None  # a judge is a name
    shape = [tower.get("image_size"), tower.get("patch_size"), tokenizer]
    return canonical_json([stage.spec.kind, read, shape])


def _check_files(stage: PlannedStage, roots: Mapping[str, Path], cache: Path) -> None:
    from scalesweep.data.stage import take_stock
    from scalesweep.specs import DataSpec

    del cache
    spec = DataSpec.from_identity(stage.spec.identity)
    root = roots[spec.dataset]
    declared: Mapping[str, str] = spec.parameters.get("files") or {}
    # Where no file is declared the stage takes stock of all; pictures are checked where they are
    # trained on.
    for path in [root / name for name in declared] or sorted(root.rglob("*.json*")):
        name = path.relative_to(root).as_posix()
        take_stock(path, declared.get(name, ""), dataset=spec.dataset)


def _check_training_data(stage: PlannedStage, roots: Mapping[str, Path], cache: Path) -> None:
    from transformers import AutoTokenizer

    from scalesweep.cost_model.token_cache import keep_statistics
    from scalesweep.cost_model.token_statistics import training_data_key
    from scalesweep.data.samples import load_training_set
    from scalesweep.models.weights import weights_folder
    from scalesweep.specs import TrainingSpec

    whole = TrainingSpec.from_identity(stage.spec.identity)
    # What a generator makes is not there yet, and not broken.
    spec = dataclasses.replace(whole, data=[s for s in whole.data if s.dataset in roots])
    tokenizer = None
    if spec.model is not None:
        folder = weights_folder(
            "tokenizer", spec.model.tokenizer, paths=stage.execution.paths, inputs={}
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    data = load_training_set(spec, roots=roots, tokenizer=tokenizer, cache=cache)
    if spec == whole:
        keep_statistics(cache, training_data_key(stage.spec), data.token_sums())


def _checked_benchmarks(stage: PlannedStage, roots: Mapping[str, Path]) -> list[Benchmark]:
    """What a stage asks or judges of these data sets, each file read once, pictures looked at."""
    from scalesweep.evaluate.benchmarks.registry import benchmark
    from scalesweep.evaluate.pictures import broken_picture

    found = []
    for asked in stage.spec.identity["benchmarks"]:
        if asked["dataset"] not in roots:
            continue
        root, options = roots[asked["dataset"]], asked.get("options", {})
        rules = benchmark(asked["name"], root, asked["file"], options)
        if (broken := broken_picture(rules.questions)) is not None:
            raise DataError(f"{asked['file']}, {broken}")
        found.append(rules)
    return found


def _check_asked(stage: PlannedStage, roots: Mapping[str, Path], cache: Path) -> None:
    """Questions, and whether the model can be asked them: length, words, letters."""
    from transformers import AutoTokenizer

    from scalesweep.evaluate.asked import check
    from scalesweep.models.weights import weights_folder
    from scalesweep.specs import GenerateSpec

    del cache
    benchmarks = _checked_benchmarks(stage, roots)
    spec = GenerateSpec.from_identity(stage.spec.identity)
    folder = weights_folder(
        "tokenizer", spec.model.tokenizer, paths=stage.execution.paths, inputs={}
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for rules in benchmarks:
        check(rules, spec, tokenizer)


def _check_judged(stage: PlannedStage, roots: Mapping[str, Path], cache: Path) -> None:
    """Questions, and what a judge is shown besides: captions, reference answers."""
    del cache
    for rules in _checked_benchmarks(stage, roots):
        rules.judge_items({question.question_id: "" for question in rules.questions})


CHECKS: Mapping[StageKind, Callable[[PlannedStage, Mapping[str, Path], Path], None]] = {
    StageKind.data: _check_files,
    StageKind.base: _check_training_data,
    StageKind.align: _check_training_data,
    StageKind.tune: _check_training_data,
    StageKind.generate: _check_asked,
    StageKind.judge: _check_judged,
}


def main(arguments: list[str]) -> int:
    asked = json.load(sys.stdin)
    found = list(tokenizer_faults(asked["tokenizers"])) or list(
        faults(
            [PlannedStage.from_json(data) for data in asked["stages"]],
            {name: Path(path) for name, path in asked["roots"].items()},
            cache=Path(arguments[0]),
        )
    )
    for line in found:
        print(line, file=sys.stderr)
    return FAULTS if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
