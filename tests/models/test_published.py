"""What a tune stage published answers as the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scalesweep.errors import StageError
from scalesweep.models.published import load_checkpoint
from scalesweep.specs import Method
from tests.models.checkpoints import generate_spec, tuned
from tests.train.remembering import questions
from tests.train.small_stages import LORA, PATHS, model_spec

TUNED = [Method.full, Method.lora, Method.qlora]


def loaded(method: Method | None, checkpoint: Path | None, **changes: Any) -> tuple[Any, Any]:
    return load_checkpoint(
        spec=generate_spec(method, **changes),
        checkpoint=checkpoint,
        language_model=Path(PATHS["language_model"]),
        vision_tower=Path(PATHS["vision_tower"]),
        tokenizer=Path(PATHS["tokenizer"]),
    )


@pytest.mark.parametrize("method", TUNED)
def test_a_checkpoint_says_what_its_model_said(method: Method, tmp_path: Path) -> None:
    trained = tuned(method, tmp_path)
    asked = questions(method)

    model, _ = loaded(method, tmp_path)

    with torch.no_grad():
        torch.testing.assert_close(
            model(**asked).logits, trained(**asked).logits, rtol=0, atol=1e-5
        )
    assert not model.training


def test_a_base_answers_without_a_tower() -> None:
    model, tokenizer = loaded(None, None)

    assert type(model).__name__ == "LlamaForCausalLM"
    assert tokenizer.pad_token_id == 0


def test_adapters_of_another_rank_are_refused(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = {k: v[:, :2].contiguous() if "lora_B" in k else v for k, v in load_file(file).items()}
    save_file(state, file)

    with pytest.raises(StageError, match="does not fit its base"):
        loaded(Method.lora, tmp_path)


@pytest.mark.parametrize("missing", ["lora_B", "linear_1"])
def test_missing_adapters_are_refused_instead_of_drawn_at_random(
    tmp_path: Path, missing: str
) -> None:
    tuned(Method.lora, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    del state[next(name for name in sorted(state) if missing in name)]
    save_file(state, file)

    with pytest.raises(StageError, match="does not fit its base"):
        loaded(Method.lora, tmp_path)


def test_adapters_on_another_base_are_refused(tmp_path: Path) -> None:
    tuned(Method.lora, tmp_path)

    with pytest.raises(StageError, match="another architecture"):
        loaded(Method.lora, tmp_path, model=model_spec(hidden_size=64))


def test_a_folder_without_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="does not fit its base"):
        loaded(Method.lora, tmp_path)


def test_adapters_reach_the_language_model_only(tmp_path: Path) -> None:
    model = tuned(Method.lora, tmp_path)

    adapted = {name for name, _ in model.named_modules() if name.endswith("lora_A")}
    assert len(adapted) == 2 * len(LORA.targets)
    assert all("language_model.layers" in name for name in adapted)
