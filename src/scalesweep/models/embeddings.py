"""What LLaVA's language model is fed: embeddings of the text, features of pictures in their places.

For training and answering alike. The image token only marks places: it may lie beyond the
vocabulary (LLaMA's tokenizers have no <image>), where the stock forward looks it up and fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def text_embeddings(llava: Any, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [B, T, D], anything in the places of pictures, and those places: [B, T] bool."""
    is_image = input_ids == llava.config.image_token_id
    embeddings = llava.get_input_embeddings()
    return embeddings(input_ids.masked_fill(is_image, 0)), is_image


def picture_features(llava: Any, pixel_values: Tensor) -> Tensor:
    """Projected patches of n pictures, one after the other: [n, 3, H, W] -> [n * P, D]."""
    features = llava.model.get_image_features(pixel_values, return_dict=True).pooler_output
    return torch.cat(list(features), dim=0)


def with_pictures(hidden: Tensor, is_image: Tensor, features: Tensor) -> Tensor:
    """Text embeddings with each picture's place replaced by its features.

    Shapes: hidden [B, T, D], is_image [B, T] with exactly as many true as features [n * P, D]
    """
    return hidden.masked_scatter(is_image.unsqueeze(-1), features.to(hidden.dtype))
