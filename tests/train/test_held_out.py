"""The held-out loss is the mean over answer tokens, whatever the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax

from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.models.published import load_checkpoint
from scalesweep.specs import Method
from scalesweep.train.held_out import held_out_loss, task_of
from scalesweep.train.tasks import LanguageTask
from scalesweep.train.trainable import build_trainable
from tests.models.checkpoints import generate_spec, tuned
from tests.train.small_stages import PATHS, Lab, training_spec


def built(method: Method) -> Any:
    return build_trainable(
        training_spec(method, prompt_loss_weight=0.0),
        paths=PATHS,
        inputs={},
        tokenizer=miniature_tokenizer(),
        image_token_id=4,
    ).task


def data_of(method: Method, lab: Lab, cache: Path) -> TrainingSet:
    spec = training_spec(method, prompt_loss_weight=0.0)
    return load_training_set(
        spec, roots={"train": lab.data}, tokenizer=miniature_tokenizer(), cache=cache
    )


def test_it_is_the_mean_of_each_answer_token_s_own_loss(lab: Lab, tmp_path: Path) -> None:
    task = built(Method.language)
    assert isinstance(task, LanguageTask)
    data = data_of(Method.language, lab, tmp_path)
    losses = []
    for number in range(5):
        ids, weights = data.sequence(number)
        with torch.no_grad():
            logits = task.model(torch.from_numpy(ids).long()[None]).logits[0]
        said = -log_softmax(logits[:-1], dim=-1)[range(len(ids) - 1), ids[1:].tolist()]
        losses += said[torch.from_numpy(weights[1:]) > 0].tolist()

    found = held_out_loss(task, data, range(5), tokenizer=miniature_tokenizer(), picture_side=None)

    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_it_is_the_same_in_any_batches_and_leaves_the_mode(lab: Lab, tmp_path: Path) -> None:
    task = built(Method.lora)  # its adapters have dropout
    task.train()
    data = data_of(Method.lora, lab, tmp_path)
    settings = {"tokenizer": miniature_tokenizer(), "picture_side": 32}

    one = held_out_loss(task, data, range(10), micro_batch_size=1, **settings)
    four = held_out_loss(task, data, range(10), micro_batch_size=4, **settings)

    assert one == pytest.approx(four, rel=1e-5)
    assert task.training


@pytest.mark.parametrize("method", [Method.full, Method.lora, Method.qlora])
def test_a_published_model_has_the_loss_of_the_trained_one(
    method: Method, lab: Lab, tmp_path: Path
) -> None:
    trained = tuned(method, tmp_path / "checkpoint")
    data = data_of(method, lab, tmp_path / "cache")
    settings = {"tokenizer": miniature_tokenizer(), "picture_side": 32}

    model, _ = load_checkpoint(
        spec=generate_spec(method),
        checkpoint=tmp_path / "checkpoint",
        language_model=Path(PATHS["language_model"]),
        vision_tower=Path(PATHS["vision_tower"]),
        tokenizer=Path(PATHS["tokenizer"]),
    )

    assert not model.training
    published = held_out_loss(task_of(model, blind=False), data, range(12), **settings)
    assert published == pytest.approx(
        held_out_loss(task_of(trained, blind=False), data, range(12), **settings), rel=1e-5
    )
    assert not any(module.training for module in model.modules())
