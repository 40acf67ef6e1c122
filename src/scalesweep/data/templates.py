"""How a conversation is written out for the model, as text that says which parts are learned.

The strings are those of the official code: FastChat's vicuna_v1.1, LLaVA's llava_llama_2 and plain,
and SmolLM2's own chat template (chatml).
A learned part begins where the open prompt of generation ends, so that what is learned is what will
be asked for: the space after "ASSISTANT:" belongs to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scalesweep.data.readers import IMAGE
from scalesweep.errors import DataError

# FastChat conversation.py, "vicuna_v1.1".
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# LLaVA conversation.py, conv_llava_llama_2.
LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
# SmolLM2-135M-Instruct, tokenizer_config.json, chat_template.
CHATML_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_IM_START, _IM_END = "<|im_start|>", "<|im_end|>"

TEMPLATES = ("mini", "mini_caption", "vicuna_v1", "llama_2", "chatml", "plain")
"""mini_caption is to mini what plain is to the others: a picture and its caption, no question."""


class Segment(NamedTuple):
    """A stretch of text that is either learned or only read."""

    text: str
    supervised: bool


Turn = tuple[str, str | None]
"""A question and its answer; None: the answer is to be generated."""


def normalise_image_mark(text: str) -> str:
    """The question with its <image> in front and on its own line, wherever it stood.

    Source: LLaVA train.py, preprocess_multimodal. Text without the mark is left as it is.
    """
    if IMAGE not in text:
        return text
    return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip()


def render(template: str, turns: Sequence[Turn], *, bos: str, eos: str) -> list[Segment]:
    """A conversation as segments; joined they are the prompt without the tokenizer's own BOS.

    turns: questions may hold <image> in any place. Only the last answer may be None (generation).
    bos, eos: the tokenizer's, as text ("<s>", "</s>").

    Raises:
        DataError: a caption template was given anything but one picture and one caption, or chatml
            a tokenizer whose EOS is not the one that ends a turn.
    """
    said = [(normalise_image_mark(question), answer) for question, answer in turns]
    if template == "vicuna_v1":
        return _vicuna(said, eos=eos)
    if template == "llama_2":
        return _llama_2(said, bos=bos, eos=eos)
    if template == "chatml":
        return _chatml(said, eos=eos)
    if template == "mini":
        return _mini(said, eos=eos)
    if template in ("plain", "mini_caption"):
        if len(said) != 1 or IMAGE not in said[0][0]:
            raise DataError(
                f"template {template} takes one picture and one caption, "
                f"not {len(said)} turns {'with' if IMAGE in said[0][0] else 'without'} {IMAGE}"
            )
        caption = said[0][1]
        return _plain(caption) if template == "plain" else _mini_caption(caption, eos=eos)
    raise DataError(f"template {template!r} is unknown; known are {', '.join(TEMPLATES)}")


def prompt_text(template: str, question: str, *, has_image: bool) -> str:
    """What a model is given to answer one question; for a picture <image> goes in front."""
    text = f"{IMAGE}\n{question}" if has_image else question
    segments = render(template, [(text, None)], bos="", eos="")
    return "".join(segment.text for segment in segments)


def _vicuna(turns: Sequence[Turn], *, eos: str) -> list[Segment]:
    segments = []
    for number, (question, answer) in enumerate(turns):
        system = "" if number else f"{VICUNA_SYSTEM} "
        segments.append(Segment(f"{system}USER: {question} ASSISTANT:", supervised=False))
        if answer is not None:
            segments.append(Segment(f" {answer}{eos}", supervised=True))
    return segments


def _llama_2(turns: Sequence[Turn], *, bos: str, eos: str) -> list[Segment]:
    segments = []
    for number, (question, answer) in enumerate(turns):
        # The first BOS is the tokenizer's, so it is not part of the text.
        head = bos if number else ""
        system = "" if number else f"<<SYS>>\n{LLAMA_2_SYSTEM}\n<</SYS>>\n\n"
        segments.append(Segment(f"{head}[INST] {system}{question} [/INST]", supervised=False))
        if answer is not None:
            segments.append(Segment(f" {answer} {eos}", supervised=True))
    return segments


def _chatml(turns: Sequence[Turn], *, eos: str) -> list[Segment]:
    if eos not in ("", _IM_END):
        raise DataError(
            f"template chatml ends an answer with {_IM_END}, but the tokenizer's EOS is {eos!r}: "
            "answers would never be seen to end; take the tokenizer of a chatml model"
        )
    segments = [Segment(f"{_IM_START}system\n{CHATML_SYSTEM}{_IM_END}\n", supervised=False)]
    for question, answer in turns:
        asked = f"{_IM_START}user\n{question}{_IM_END}\n{_IM_START}assistant\n"
        segments.append(Segment(asked, supervised=False))
        if answer is not None:
            segments.append(Segment(f"{answer}{_IM_END}", supervised=True))
            segments.append(Segment("\n", supervised=False))
    return segments


def _mini(turns: Sequence[Turn], *, eos: str) -> list[Segment]:
    segments = []
    for number, (question, answer) in enumerate(turns):
        gap = " " if number else ""
        segments.append(Segment(f"{gap}USER: {question} ASSISTANT:", supervised=False))
        if answer is not None:
            segments.append(Segment(f" {answer} {eos}", supervised=True))
    return segments


def _plain(caption: str | None) -> list[Segment]:
    segments = [Segment(IMAGE, supervised=False)]
    if caption is not None:
        segments.append(Segment(f"{caption}\n", supervised=True))
    return segments


def _mini_caption(caption: str | None, *, eos: str) -> list[Segment]:
    segments = [Segment(f"USER: {IMAGE}", supervised=False)]
    if caption is not None:
        segments.append(Segment(f" {caption} {eos}", supervised=True))
    return segments
