"""What stands before the model, for plain transformers: tokenizer, pictures, chat template.

What the processor makes of a question is compared with what the model was trained on, id by id and
pixel by pixel, before it is given away.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoProcessor, CLIPImageProcessorPil, LlavaProcessor

from scalesweep.data.chat_templates import chat_template
from scalesweep.data.images import CLIP_MEAN, CLIP_STD, normalise, resize_and_crop, to_rgb
from scalesweep.data.readers import IMAGE
from scalesweep.data.tokenize import TextEncoder, image_token_id
from scalesweep.errors import DataError
from scalesweep.specs import VisionTowerSpec

GAPS = ("", " ")
"""What may have to stand between picture and line break: see chat_template."""

_QUESTIONS = ("Who are you ?", "What is in the picture ?")
"""Asked to compare; a tokenizer with few words cannot read them and is asked without any."""


def save_processor(
    folder: Path, tokenizer: Any, tower: VisionTowerSpec, *, template: str, blind: bool
) -> dict[str, Any]:
    """Write processor, tokenizer and chat template; facts about them.

    tokenizer: as the model was trained with it.

    Raises:
        DataError: plain transformers would not give the ids or pixels that the model was trained
            with.
    """
    encoder = TextEncoder(tokenizer)
    added = IMAGE not in tokenizer.get_vocab()
    exported = _with_image_token(tokenizer)
    for gap in GAPS:
        processor = LlavaProcessor(
            image_processor=_image_processor(tower, blind=blind),
            tokenizer=exported,
            patch_size=tower.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            image_token=IMAGE,
            chat_template=chat_template(template, gap=gap),
        )
        processor.save_pretrained(folder)
        saved = AutoProcessor.from_pretrained(folder, backend="pil")
        differing = _differing_question(saved, encoder, template, tower)
        if differing is None:
            _check_pixels(saved, tower, blind=blind)
            return {"image_token_added": added, "image_gap": gap}
    raise DataError(
        f"the tokenizer gives other ids in plain transformers than in training for {differing!r}; "
        "this model cannot be exported"
    )


def _with_image_token(tokenizer: Any) -> Any:
    """A copy with <image> as a token of its own, and what batches of questions need."""
    wanted = image_token_id(tokenizer)
    exported = deepcopy(tokenizer)
    exported.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    if exported.convert_tokens_to_ids(IMAGE) != wanted:
        raise DataError(
            f"{IMAGE} becomes token {exported.convert_tokens_to_ids(IMAGE)}, but the model was "
            f"trained with {wanted}"
        )
    if exported.pad_token is None:
        exported.pad_token = exported.unk_token or exported.eos_token
    exported.padding_side = "left"
    return exported


def _image_processor(tower: VisionTowerSpec, *, blind: bool) -> Any:
    """The tower's preprocessing: data/images.py. The blind baseline sees zeros."""
    side = tower.image_size
    return CLIPImageProcessorPil(
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": side},
        resample=int(Image.Resampling.BICUBIC),
        do_center_crop=True,
        crop_size={"height": side, "width": side},
        do_rescale=True,
        rescale_factor=0.0 if blind else 1 / 255,
        do_normalize=True,
        image_mean=[0.0] * 3 if blind else list(CLIP_MEAN),
        image_std=[1.0] * 3 if blind else list(CLIP_STD),
    )


def _differing_question(
    processor: Any, encoder: TextEncoder, template: str, tower: VisionTowerSpec
) -> str | None:
    """The first question that gives other ids than in training, or None."""
    picture = Image.new("RGB", (tower.image_size, tower.image_size), (90, 20, 160))
    for text in (*_QUESTIONS, ""):
        for with_picture in (True, False):
            patches = tower.num_patches if with_picture else 0
            try:
                ours = encoder.prompt(template, text, num_patches=patches)
            except DataError:  # a miniature's tokenizer lacks a word
                continue
            content = [{"type": "image"}] if with_picture else []
            asked: str = processor.apply_chat_template(
                [{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
                add_generation_prompt=True,
            )
            images = {"images": picture} if with_picture else {}
            theirs = processor(text=asked, return_tensors="np", **images)["input_ids"][0]
            if not np.array_equal(theirs, ours):
                return asked
    return None


def _check_pixels(processor: Any, tower: VisionTowerSpec, *, blind: bool) -> None:
    """Refuse preprocessing that is not ours, on a picture of noise with a transparent part."""
    noise = np.random.default_rng(0).integers(
        0, 256, (tower.image_size + 7, 2 * tower.image_size + 3, 4), dtype=np.uint8
    )
    picture = Image.fromarray(noise, mode="RGBA")
    ours = torch.from_numpy(resize_and_crop(to_rgb(picture), tower.image_size))[None]
    theirs = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    if not torch.equal(theirs, normalise(ours, blind=blind)):
        difference = (theirs - normalise(ours, blind=blind)).abs().max().item()
        raise DataError(
            f"plain transformers makes other pixels of a picture than training (by {difference:g})"
        )
