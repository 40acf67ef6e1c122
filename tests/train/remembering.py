"""A training stage that leaves what its model answers, beside its output: for comparing reloads.

answers.pt of the attempt: {"inputs": what the model was called with, "outputs": what came out,
"buffers": dtypes of what is neither weight nor optimizer}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from scalesweep.data.images import normalise
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.specs import Method
from scalesweep.stages import StageContext
from scalesweep.train import stage
from scalesweep.train.publish import publish
from scalesweep.train.trainable import Trainable

QUESTION = "USER: <image> what color is the circle ? ASSISTANT:"


def run(context: StageContext) -> None:
    def remember_and_publish(trainable: Trainable, output: Path, **how: Any) -> None:
        was_training = trainable.task.training
        trainable.task.eval()
        inputs = questions(trainable.spec.method)
        with torch.no_grad():
            outputs = trainable.model(**inputs)
        remembered = {
            "inputs": inputs,
            "outputs": outputs[0],
            "buffers": {name: buffer.dtype for name, buffer in trainable.task.named_buffers()},
        }
        torch.save(remembered, context.attempt.path / "answers.pt")
        trainable.task.train(was_training)
        publish(trainable, output, **how)

    stage.publish = remember_and_publish
    stage.run(context)


def questions(method: Method) -> dict[str, torch.Tensor]:
    """Two pictures, or two texts, or both, as the method's model takes them."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    pictures = {"pixel_values": normalise(pixels)}
    if method is Method.tower:
        return pictures
    patches = 0 if method is Method.language else 16
    tokens = miniature_tokenizer()(QUESTION)["input_ids"]
    ids = torch.tensor([[*tokens[:1], *tokens[1:2] * patches, *tokens[2:]]] * 2)
    ids[1, -3] = 60  # another word
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return text if method is Method.language else {**text, **pictures}
