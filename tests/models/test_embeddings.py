"""What the language model is fed equals what the stock class feeds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalesweep.models.embeddings import picture_features, text_embeddings, with_pictures
from scalesweep.specs import Method
from tests.models.checkpoints import tuned
from tests.train.remembering import questions


def test_merged_embeddings_give_the_stock_classs_answer(tmp_path: Path) -> None:
    model = tuned(Method.full, tmp_path)
    asked = questions(Method.full)

    with torch.no_grad():
        hidden, is_image = text_embeddings(model, asked["input_ids"])
        merged = with_pictures(hidden, is_image, picture_features(model, asked["pixel_values"]))
        ours = model(inputs_embeds=merged, attention_mask=asked["attention_mask"]).logits
        stock = model(**asked).logits

    assert torch.equal(ours, stock)
    assert int(is_image.sum()) == 2 * 16


def test_an_image_token_beyond_the_vocabulary_only_marks_places(tmp_path: Path) -> None:
    model = tuned(Method.full, tmp_path)
    ids = questions(Method.full)["input_ids"]
    beyond = ids.masked_fill(ids == 4, 132)
    _, known = text_embeddings(model, ids)

    with pytest.raises(IndexError):
        model.get_input_embeddings()(beyond)
    model.config.image_token_id = 132
    hidden, places = text_embeddings(model, beyond)

    assert torch.equal(places, known)
    assert torch.equal(hidden[~places], model.get_input_embeddings()(ids)[~known])
