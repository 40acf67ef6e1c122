"""What an exported model says of itself: a model card for people, the same facts for programs.

Nothing private leaves through here: texts pass formatting.public, and places are no facts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scalesweep import __version__
from scalesweep.errors import StoreError
from scalesweep.plan.graph import Cell, Plan
from scalesweep.records import SCHEMA, StageRef
from scalesweep.report import formatting as fmt
from scalesweep.report.collect import CellResult, StudyResults
from scalesweep.report.command import without_store
from scalesweep.report.labels import value_at
from scalesweep.report.render_json import cell_json
from scalesweep.report.settings import Setting
from scalesweep.report.study_report import StudyReport
from scalesweep.report.versions import known_versions
from scalesweep.rundir import Store, read_json
from scalesweep.versions import source_commit

HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "Llama 2 Community License": "llama2",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
}
"""Our words -> the hub's; anything else is "other" there, with our words as its name."""

_TRAINING_ROLES = ("base", "tower", "align", "tune")


# ---------------------------------------------------------------- facts, for programs


def provenance(report: StudyReport, store: Store, cell: Cell) -> dict[str, Any]:
    """Everything known of a cell: recipe, data, cost, scores, stages, versions."""
    results = report.results
    result = next(r for r in results.cells if r.cell.name == cell.name)
    config = cell.config
    facts = {
        "schema": SCHEMA,
        "scalesweep": {"version": __version__, "commit": source_commit()},
        "study": results.plan.study,
        "command": without_store(results.plan.command),
        "cell": cell_json(result, has_jobs=results.account is not None),
        "weights": {
            "language_model": _weights(config, "model"),
            "vision_tower": _weights(config, "resolution"),
        },
        "recipe": {role: _identity(results.plan, cell, role) for role in _trained(cell)},
        "execution": _execution(results.plan, cell),
        "data": data_files(results.plan, store, cell),
        "trained": _training_summary(store, cell),
        "scores": _scores(report, result),
        "prices": [
            {
                "usd_per_node_hour": price.usd_per_node_hour,
                "node_devices": price.node_devices,
                "cluster": price.cluster,
                "is_example": price.is_example,
            }
            for price in results.prices
        ],
        "stages": {role: _stage(results, ref) for role, ref in sorted(cell.stages.items())},
        "versions": known_versions(results),
        "versions_recorded": bool(results.versions),
        "notes": list(results.plan.notes),
    }
    public: dict[str, Any] = _public(facts)
    return public


def _public(value: Any) -> Any:
    """All texts without places and secrets."""
    if isinstance(value, Mapping):
        return {key: _public(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_public(part) for part in value]
    return fmt.public(value) if isinstance(value, str) else value


def _weights(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    return {
        "name": value_at(config, f"{group}.name"),
        "declared": value_at(config, f"{group}.weights"),
        "licence": value_at(config, f"{group}.licence") or "",
        "source": value_at(config, f"{group}.source") or "",
    }


def _trained(cell: Cell) -> list[str]:
    return [role for role in _TRAINING_ROLES if role in cell.stages]


def _identity(plan: Plan, cell: Cell, role: str) -> dict[str, Any]:
    return dict(plan.stage(cell.stages[role]).spec.identity)


def _execution(plan: Plan, cell: Cell) -> dict[str, Any]:
    """How the tune stage was planned to run; without places."""
    execution = plan.stage(cell.stages["tune"]).execution.to_json()
    return {name: value for name, value in execution.items() if name not in ("schema", "paths")}


def _stage(results: StudyResults, ref: StageRef) -> dict[str, Any]:
    stage = results.stages[ref]
    return {
        "stage": str(ref),
        "label": stage.label,
        "state": str(stage.state),
        "attempts": len(stage.attempts),
    }


def data_files(plan: Plan, store: Store, cell: Cell) -> list[dict[str, Any]]:
    """Every file that a training stage of the cell read, with its hash as it was taken stock of."""
    found = []
    for role in _trained(cell):
        for source in _identity(plan, cell, role)["data"]:
            name = source["dataset"]
            declared: Mapping[str, Any] = value_at(cell.config, f"datasets.{name}") or {}
            found.append(
                {
                    "stage": role,
                    "dataset": name,
                    "file": source["file"],
                    "max_items": source.get("max_items"),
                    **_file_facts(store, cell, name, source["file"]),
                    "generator": declared.get("generator"),
                    "source": declared.get("source") or "",
                    "url": declared.get("url") or "",
                    "licence": declared.get("licence") or "",
                }
            )
    return found


def _file_facts(store: Store, cell: Cell, dataset: str, file: str) -> dict[str, Any]:
    """Size, hash and count of a file when its data stage ended; empty where it is not known."""
    ref = cell.stages.get(f"data:{dataset}")
    if ref is None:
        return {}
    stage = store.stage(ref)
    try:
        done = stage.done()
        if done is None:
            return {}
        if file in done.files:
            drawn = json.loads((stage.attempt(done.attempt).output / file).read_text("utf-8"))
            return {
                "sha256": done.files[file].sha256,
                "size": done.files[file].size,
                "num_items": len(drawn),
            }
        stock = read_json(stage.attempt(done.attempt).output / "external.json")
    except (StoreError, OSError, ValueError):
        return {}
    return dict(stock["files"].get(file, {}))


def _training_summary(store: Store, cell: Cell) -> dict[str, Any]:
    """training.json of each trained stage: steps, samples, what was skipped."""
    found = {}
    for role in _trained(cell):
        with contextlib.suppress(StoreError, OSError):  # an earlier stage may be gone by now
            summary = read_json(store.stage(cell.stages[role]).output() / "training.json")
            found[role] = {k: v for k, v in summary.items() if k != "skipped"}
    return found


def _scores(report: StudyReport, result: CellResult) -> dict[str, Any]:
    """Of this one cell, with the error that the report gives it: questions and seeds."""
    alone = Setting(label=result.label, cells=(result,))
    return {
        name: {
            "score": found.score,
            "standard_error": alone.standard_error(name, report.spread(name)),
            "standard_error_of_questions": found.standard_error,
            "seeds_in_error": report.spread(name) is not None,
            "num_questions": found.num_questions,
            "num_missing": found.num_missing,
            "before_tuning": result.before[name].score if name in result.before else None,
        }
        for name, found in result.scores.items()
    }


# ---------------------------------------------------------------- the card, for people


def model_card(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """README.md of an exported directory.

    facts: of provenance(). made: what was exported: form, method, template, dtype and so on.
    """
    parts = [
        _front_matter(facts, made),
        _head(facts, made),
        _use(made),
        _recipe(facts),
        _data(facts),
        _cost(facts),
        _score_table(facts),
        _versions(facts, made),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _front_matter(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    weights = facts["weights"]["language_model"]
    lines = ["---"]
    base = _hub_name(weights["declared"])
    if base is not None:
        lines += ["base_model:", f"- {base}"]
        tower = _hub_name(facts["weights"]["vision_tower"]["declared"])
        lines += [f"- {tower}"] if tower is not None else []
        lines.append(
            f"base_model_relation: {'adapter' if made['form'] == 'adapter' else 'finetune'}"
        )
    lines.append(f"library_name: {'peft' if made['form'] == 'adapter' else 'transformers'}")
    lines.append("pipeline_tag: image-text-to-text")
    if weights["licence"]:
        known = HUB_LICENCES.get(weights["licence"])
        lines.append(f"license: {known or 'other'}")
        if known is None:
            lines.append(f"license_name: {_yaml(weights['licence'])}")
    datasets = dict.fromkeys(
        match.group(1)
        for entry in facts["data"]
        if (match := re.fullmatch(r"https://huggingface\.co/datasets/([\w./-]+)", entry["url"]))
    )
    if datasets:
        lines += ["datasets:", *(f"- {name}" for name in datasets)]
    tags = ["llava", "multimodal", "scalesweep", made["method"]]
    lines += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    return "\n".join(lines) + "\n"


def _hub_name(declared: str | None) -> str | None:
    """hub:owner/name@revision -> owner/name."""
    match = re.fullmatch(r"hub:([^@]+)(@.*)?", declared or "")
    return match.group(1) if match else None


def _yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_FORMS = {
    "full": "The whole model, trained in full.",
    "adapter": "LoRA adapters and the projector, for the base in `base/`.",
    "merged": "The base with the LoRA adapters added to its weights.",
}


def _head(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    cell, weights = facts["cell"], facts["weights"]
    text = _FORMS[made["form"]]
    if made["form"] == "merged" and made["method"] == "qlora":
        text += (
            " The base was trained on in 4 bit (NF4): its weights here are the dequantised ones, "
            "which are not those of the original model."
        )
    if made["form"] == "adapter" and not made["with_base"]:
        text = "LoRA adapters and the projector; the base is not in this directory."
    lines = [
        f"# {facts['study']}: {cell['name']}",
        "",
        f"{text} LLaVA of {weights['language_model']['name']} "
        f"({_declared(weights['language_model'])}) and the CLIP tower "
        f"{weights['vision_tower']['name']} ({_declared(weights['vision_tower'])}) with one linear "
        "projector, in the stock two-layer form: identity activation, second layer a frozen "
        "identity.",
        "",
    ]
    for name, words in (("Language model", "language_model"), ("Tower", "vision_tower")):
        licence = weights[words]["licence"] or "not stated here"
        lines.append(f"- {name}: licence {licence}. {weights[words]['source']}".rstrip())
    return "\n".join(lines) + "\n"


def _declared(weights: Mapping[str, Any]) -> str:
    declared = str(weights["declared"])
    kind, _, rest = declared.partition(":")
    return f"sha256 {rest[:16]}" if kind == "sha256" else rest or declared


_LOAD = {
    "full": """\
    from transformers import LlavaForConditionalGeneration
    model = LlavaForConditionalGeneration.from_pretrained(folder)
""",
    "adapter": """\
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration
    base = LlavaForConditionalGeneration.from_pretrained(f"{folder}/base")
    model = PeftModel.from_pretrained(base, folder)
""",
}

_ASK = """\
    from PIL import Image
    from transformers import AutoProcessor
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    asked = processor.apply_chat_template(
        [{"role": "user", "content": [
            {"type": "image"}, {"type": "text", "text": "What is in the picture?"}]}],
        add_generation_prompt=True,
    )
    inputs = processor(text=asked, images=Image.open("picture.jpg"), return_tensors="pt")
    answer = model.generate(**inputs.to(model.device, model.dtype))
    print(processor.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def _use(made: Mapping[str, Any]) -> str:
    lines = ["## Use it", "", "scalesweep is not needed.", ""]
    lines += [_LOAD["adapter" if made["form"] == "adapter" else "full"].rstrip("\n"), ""]
    lines += [_ASK.rstrip("\n"), ""]
    if made["form"] == "adapter" and made["method"] == "qlora":
        lines += [
            "`base/` holds the language model in 4 bit (NF4, double quantisation, by bitsandbytes "
            f"on {_device(made)}); tower, projector and output layer are whole. To quantise a base "
            "in full precision yourself, give the modules to skip by their full names; short ones "
            "are ignored without a word:",
            "",
            '    BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",',
            "        bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch."
            f"{made['compute_dtype']},",
            '        llm_int8_skip_modules=["model.vision_tower", '
            '"model.multi_modal_projector", "lm_head"])',
            "",
        ]
    if made["form"] == "adapter" and not made["with_base"]:
        lines += [
            "`base/` is left out here: take it from an export of another cell of the same base "
            "(scalesweep.json names its stages).",
            "",
        ]
    lines += [
        f"- Conversations: template `{made['template']}`, in chat_template.jinja; "
        "one picture, in front of the first question.",
        "- Pictures: short side to the tower's side (bicubic), middle square, CLIP's mean and "
        'deviation; no padding to a square. `backend="pil"` gives the very pixels of training; '
        "another backend resizes a little differently.",
        "- generation_config.json asks as the model was scored (greedy or by beams).",
    ]
    if made.get("image_token_added"):
        lines.append(
            "- The tokenizer of the language model has no `<image>`; it was added, and the "
            f"vocabulary padded with zeros from {made['trained_vocabulary']:,} to "
            f"{made['vocabulary']:,}. generation_config.json suppresses the added tokens, whose "
            "logits say nothing; in your own loop, leave them out."
            if "vocabulary" in made
            else "- The tokenizer of the language model has no `<image>`; it was added."
        )
    if made.get("blind"):
        lines.append(
            "- This is a blind baseline: it was trained on pictures of zeros, and the processor "
            "makes such ones."
        )
    return "\n".join(lines) + "\n"


def _device(made: Mapping[str, Any]) -> str:
    return "a GPU" if made.get("device") == "cuda" else "the CPU"


_RECIPE_ROWS = (
    ("method", "method"),
    ("template", "template"),
    ("global_batch_size", "samples per step"),
    ("max_seq_len", "longest sequence, tokens"),
    ("precision", "precision"),
    ("seed", "seed"),
    ("prompt_loss_weight", "loss weight of prompts"),
    ("on_broken_item", "a broken item"),
)


def _recipe(facts: Mapping[str, Any]) -> str:
    roles = list(facts["recipe"])
    rows = [["", *roles]]
    for key, words in _RECIPE_ROWS:
        rows.append([words, *(_value(facts["recipe"][role].get(key)) for role in roles)])
    optims = {role: facts["recipe"][role]["optim"] for role in roles}
    for key in dict.fromkeys(key for optim in optims.values() for key in optim):
        rows.append([f"optim.{key}", *(_value(optims[role].get(key)) for role in roles)])
    loras = {role: facts["recipe"][role].get("lora") or {} for role in roles}
    for key in dict.fromkeys(key for lora in loras.values() for key in lora):
        rows.append([f"lora.{key}", *(_value(loras[role].get(key)) for role in roles)])
    rows.append(["steps", *(_trained_value(facts, role, "steps") for role in roles)])
    cell = facts["cell"]
    execution = facts["execution"]
    return "\n".join(
        [
            "## Recipe",
            "",
            *_table(rows),
            "",
            f"{cell['params']:,} parameters, {cell['trainable_params']:,} of them trained in the "
            f"tune stage, planned on {fmt.plural(execution['num_nodes'], 'node')} of "
            f"{fmt.plural(execution['devices_per_node'], 'device')} "
            f"(ZeRO-{execution['zero_stage']}, {execution['micro_batch_size']} samples a device).",
        ]
    ) + "\n"  # fmt: skip


def _trained_value(facts: Mapping[str, Any], role: str, key: str) -> str:
    return _value(facts["trained"].get(role, {}).get(key))


def _value(value: Any) -> str:
    if value is None:
        return fmt.NOTHING
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(facts: Mapping[str, Any]) -> str:
    rows = [["stage", "data set", "file", "items", "sha256", "licence"]]
    for entry in facts["data"]:
        items = f"{entry['num_items']:,}" if "num_items" in entry else fmt.NOTHING
        if entry["max_items"] is not None:
            items += f" (first {entry['max_items']:,})"
        made = f" (drawn by `{entry['generator']}`)" if entry["generator"] else ""
        rows.append(
            [
                entry["stage"],
                entry["dataset"] + made,
                entry["file"],
                items,
                entry.get("sha256", "not known")[:16],
                entry["licence"] or "not stated here",
            ]
        )
    lines = ["## Data", "", *_table(rows), ""]
    for role, summary in facts["trained"].items():
        if "num_samples" in summary:
            skipped = summary.get("num_skipped") or 0
            lines.append(
                f"- {role}: {summary['num_samples']:,} samples"
                + (f", {skipped:,} broken ones skipped" if skipped else "")
            )
    sources = dict.fromkeys(
        f"- {entry['dataset']}: {' '.join(filter(None, (entry['source'], entry['url'])))}"
        for entry in facts["data"]
        if entry["source"] or entry["url"]
    )
    lines += sources
    lines.append("")
    lines.append("The whole hashes are in scalesweep.json.")
    return "\n".join(lines) + "\n"


def _cost(facts: Mapping[str, Any]) -> str:
    costs, prices = facts["cell"]["costs"], facts["prices"]
    priced = any(price["usd_per_node_hour"] > 0 for price in prices)
    rows = [["", "node-hours", "dollars"]]
    for name, words in (
        ("tune", "the tune stage alone"),
        ("standalone", "all its stages, as if it were alone"),
    ):
        cost = costs[name]
        usd = fmt.usd(cost["usd"]) if priced else fmt.NOTHING
        hours = cost["node_hours"]
        rows.append([words, fmt.number(hours, decimals=fmt.decimals_for([hours])), usd])
    if judging := facts["cell"].get("judging"):
        usd = fmt.usd(judging["usd"]) if judging["usd"] is not None else "not known"
        rows.append(["judges, besides", fmt.NOTHING, usd])
    lines = ["## Cost", "", *_table(rows), ""]
    for price in prices:
        example = " (an example price)" if price["is_example"] else ""
        if price["usd_per_node_hour"] > 0:
            lines.append(
                f"- ${price['usd_per_node_hour']:g} per node-hour{example}, a node of "
                f"{fmt.plural(price['node_devices'], 'device')}, cluster {price['cluster']}"
            )
        else:
            lines.append(f"- cluster {price['cluster']}: no price was set")
    if not facts["cell"]["costs_are_whole"]:
        lines.append("- Not every stage of the cell is done: these costs will grow.")
    return "\n".join(lines) + "\n"


def _score_table(facts: Mapping[str, Any]) -> str:
    scores = facts["scores"]
    lines = ["## Scores", ""]
    if not scores:
        return "\n".join([*lines, "No score yet: this checkpoint was not judged."]) + "\n"
    rows = [["benchmark", "score", "questions", "before tuning"]]
    for name, found in scores.items():
        missing = f" ({found['num_missing']} without a verdict)" if found["num_missing"] else ""
        rows.append(
            [
                name,
                fmt.score_with_error(found["score"], found["standard_error"]),
                f"{found['num_questions']:,}{missing}",
                fmt.score(found["before_tuning"]),
            ]
        )
    with_seeds = all(found["seeds_in_error"] for found in scores.values())
    return "\n".join(
        [
            *lines,
            *_table(rows),
            "",
            "Fractions right, ± one standard error, of the questions"
            + (" and of the luck of a seed." if with_seeds else " alone: one seed says nothing of "
               "the luck of a seed."),
        ]
    ) + "\n"  # fmt: skip


def _versions(facts: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    trained = ", ".join(f"{name} {', '.join(v)}" for name, v in facts["versions"].items())
    commit = facts["scalesweep"]["commit"]
    lines = [
        "## Where it comes from",
        "",
        f"- Trained with {trained}" + ("." if facts["versions_recorded"] else " (installed now)."),
        f"- Exported by scalesweep {facts['scalesweep']['version']}"
        + (f" ({commit[:12]})" if commit else "")
        + f" with transformers {made['transformers']}, torch {made['torch']}.",
        f"- Study `{facts['study']}`: `{facts['command']}`",
    ]
    for role in (*_TRAINING_ROLES, "generate", "judge"):
        if role in facts["stages"]:
            stage = facts["stages"][role]
            state = "" if stage["state"] == "done" else f", {stage['state']}"
            lines.append(f"- {role}: `{stage['stage']}`{state}")
    lines += [f"- {fmt.sentence(note)}" for note in facts["notes"]]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in body)]


def _row(values: Iterable[str]) -> str:
    return (
        "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"
    )
