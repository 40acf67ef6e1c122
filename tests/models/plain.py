"""Loads exported directories with plain transformers and peft, in a process without scalesweep.

    python -I tests/models/plain.py TASKS.json RESULTS.pt

It imports nothing of the project, and makes sure that it could not.
"""

import importlib
import json
import sys
import warnings
from pathlib import Path


class NotInstalled:
    """Makes scalesweep impossible to import, wherever it is installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in ("scalesweep", "tests", "hydra_plugins"):
            raise ModuleNotFoundError(f"No module named {name!r}")


sys.meta_path.insert(0, NotInstalled())
try:
    importlib.import_module("scalesweep")
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("scalesweep can be imported")
warnings.simplefilter("ignore")

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoProcessor, LlavaForConditionalGeneration  # noqa: E402


def load(task: dict) -> object:
    folder = Path(task["folder"])
    if not task["adapter"]:
        return LlavaForConditionalGeneration.from_pretrained(folder).eval()
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base")
    return PeftModel.from_pretrained(base, folder).eval()


def asked(processor: object, question: dict) -> dict:
    """A question as the model card says: chat template, then processor."""
    content = [{"type": "text", "text": question["text"]}]
    images = {}
    if question["image"]:
        content.insert(0, {"type": "image"})
        images = {"images": Image.open(question["image"])}
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    return processor(text=text, return_tensors="pt", **images)


@torch.no_grad()
def results(task: dict) -> list:
    model = load(task)
    processor = AutoProcessor.from_pretrained(task["folder"], backend="pil")
    found = []
    for question in task["questions"]:
        inputs = asked(processor, question)
        width = inputs["input_ids"].shape[1]
        answers = {
            beams: model.generate(**inputs, num_beams=beams, max_new_tokens=8)[0, width:].tolist()
            for beams in task.get("beams", (1, 4))
        }
        logits = model(**inputs).logits
        found.append({**inputs, "logits": logits, "answers": answers, "type": type(model).__name__})
    return found


if __name__ == "__main__":
    tasks = json.loads(Path(sys.argv[1]).read_text())
    torch.save({name: results(task) for name, task in tasks.items()}, sys.argv[2])
