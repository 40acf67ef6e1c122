"""Small data sets in the official formats, a LLaMA-like tokenizer and specs, for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scalesweep.specs import (
    DataSourceSpec,
    LanguageModelSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)


def item(
    *said: str, image: str | None = None, item_id: str = "a", speakers: Sequence[str] = ()
) -> dict[str, Any]:
    """An item of an official file; turns alternate between human and gpt unless told."""
    names = speakers or [("human", "gpt")[n % 2] for n in range(len(said))]
    turns = [{"from": name, "value": text} for name, text in zip(names, said, strict=True)]
    picture = {} if image is None else {"image": image}
    return {"id": item_id, **picture, "conversations": turns}


def write_items(path: Path, items: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def write_picture(path: Path, *, color: tuple[int, int, int] = (200, 30, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 24), color).save(path)
    return path


def llama_like_tokenizer(
    *, legacy: bool = True, extra: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Built as LLaMA's: BPE over "▁" for spaces, byte fallback, BOS in front.

    legacy: every text between special tokens gets a "▁" in front, as the original tokenizer does;
    else only the first one.
    extra: pieces beside its few words.
    """
    words = "USER ASSISTANT : Who are you ? I am Vicuna . The cup is white and red [INST] [/INST]"
    texts = [f"▁{word}" for word in words.split()] + [".", "?", "USER", "ASS", "IST", "ANT"]
    texts += extra
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(set("".join(texts)) | set("abcdefghijklmnopqrstuvwxyz"))
    merges = []
    for text in texts:
        for end in range(2, len(text) + 1):
            if text[:end] not in pieces:
                pieces.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def training_spec(
    *files: tuple[str, str],
    method: Method = Method.full,
    template: str = "mini",
    side: int = 32,
    on_broken_item: str = "stop",
    max_seq_len: int = 256,
    prompt_loss_weight: float = 0.0,
    blind: bool = False,
    max_items: int | None = None,
) -> TrainingSpec:
    """A stage that learns from (file, image folder) pairs of the data set "d"."""
    tower = VisionTowerSpec(
        name="tower",
        hidden_size=64,
        intermediate_size=192,
        num_layers=4,
        num_heads=4,
        patch_size=8,
        image_size=side,
        feature_layer=-2,
        weights="random",
    )
    model = LanguageModelSpec(
        name="model",
        hidden_size=32,
        intermediate_size=96,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        vocab_size=132,
        max_position_embeddings=256,
        template=template,
        weights="random",
        tokenizer="stage",
    )
    optim = OptimSpec(
        lr=1e-3,
        schedule="cosine",
        warmup_steps=1,
        warmup_ratio=None,
        weight_decay=0.0,
        betas=[0.9, 0.999],
        eps=1e-8,
        max_grad_norm=1.0,
        epochs=None,
        max_steps=2,
    )
    return TrainingSpec(
        method=method,
        model=None if method is Method.tower else model,
        tower=None if method is Method.language else tower,
        blind=blind,
        data=[
            DataSourceSpec(dataset="d", file=file, image_folder=folder, max_items=max_items)
            for file, folder in files
        ],
        on_broken_item=on_broken_item,
        template=template,
        prompt_loss_weight=prompt_loss_weight,
        optim=optim,
        global_batch_size=4,
        max_seq_len=max_seq_len,
        precision=Precision.fp32,
        seed=1,
    )
