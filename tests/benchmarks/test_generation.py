"""The baseline and what is compared with it say the same, and a near tie is measured right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import generation
from benchmarks.generation import Case, identical, ours, plain
from scalesweep.data.images import normalise
from scalesweep.data.tokenize import TextEncoder
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.evaluate.generation import Prompt
from scalesweep.specs import Method
from tests.models.checkpoints import tuned


@pytest.mark.parametrize("pictures", [True, False])
def test_plain_generation_and_ours_answer_alike(tmp_path: Path, pictures: bool) -> None:
    tokenizer = miniature_tokenizer()
    encoder = TextEncoder(tokenizer)
    texts = ["what color is the circle ?", "where is the red cross ?", "who owns the circle ?"]
    generator = torch.Generator().manual_seed(2)
    shown = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    case = Case(
        name="small",
        model=tuned(Method.full, tmp_path),
        tokenizer=tokenizer,
        prompts=[
            Prompt(
                number=n,
                input_ids=encoder.prompt("mini", text, num_patches=16 if pictures else 0),
            )
            for n, text in enumerate(texts)
        ],
        pictures=list(normalise(shown)) if pictures else [None] * 3,
        max_new_tokens=6,
        rounds=1,
    )

    said = [plain(case, batch_size=1), plain(case, batch_size=2), ours(case, batch_size=3)]

    assert said[0] == said[1] == said[2]
    assert identical(said[0], {**said[0], 1: []}) == 2


@pytest.mark.parametrize(
    ("logits", "spacings"),
    [
        pytest.param([7.0, 7.0], 0.0, id="a tie"),
        # bf16 has 8 significant bits: between 4 and 8 numbers are 4 * 2**-7 = 0.03125 apart.
        pytest.param([7.0, 6.9375], 2.0, id="two steps"),
        pytest.param([10.625, 10.5625], 1.0, id="one step, twice as wide above 8"),
    ],
)
def test_a_near_tie_is_measured_in_spacings_of_the_dtype(
    logits: list[float], spacings: float
) -> None:
    def model(**_: Any) -> Any:
        return SimpleNamespace(logits=torch.tensor([[logits]], dtype=torch.bfloat16))

    model.dtype = torch.bfloat16  # type: ignore[attr-defined]
    ids = torch.tensor([5, 6], dtype=torch.int32).numpy()
    case = Case(
        name="said",
        model=model,
        tokenizer=None,
        prompts=[Prompt(number=0, input_ids=ids)],
        pictures=[None],
        max_new_tokens=1,
        rounds=1,
    )

    assert generation._gap(case, 0, [0], [1]) == spacings
