"""Templates against the exact strings of the official code; «» marks what is learned."""

from __future__ import annotations

import itertools

import pytest

from scalesweep.data.templates import normalise_image_mark, prompt_text, render
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
LLAMA_2 = (
    "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand "
    "the visual content that the user provides, and assist the user with a variety of tasks using "
    "natural language.\n<</SYS>>\n\n"
)
CHATML = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
# tokenizer.chat_template in SmolLM2-135M-Instruct's GGUF file, and in its tokenizer_config.json.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
TWO_TURNS = [("<image>\nWhat is it?", "A bus."), ("Which color?", "Red.")]

EOS = {"chatml": "<|im_end|>"}

GOLDEN = [
    pytest.param(
        "vicuna_v1",
        TWO_TURNS,
        VICUNA + "USER: <image>\nWhat is it? ASSISTANT:« A bus.</s>»USER: Which color? ASSISTANT:"
        "« Red.</s>»",
        id="vicuna, two turns with a picture",
    ),
    pytest.param(
        "vicuna_v1",
        [("What is it?\n<image>", "A bus.")],
        VICUNA + "USER: <image>\nWhat is it? ASSISTANT:« A bus.</s>»",
        id="vicuna, picture after the question",
    ),
    pytest.param(
        "vicuna_v1",
        [(" Hi ", " ho ")],
        VICUNA + "USER:  Hi  ASSISTANT:«  ho </s>»",
        id="vicuna, text only keeps its spaces",
    ),
    pytest.param(
        "vicuna_v1",
        [("Hi", None)],
        VICUNA + "USER: Hi ASSISTANT:",
        id="vicuna, open for the answer",
    ),
    pytest.param(
        "llama_2",
        TWO_TURNS,
        LLAMA_2 + "<image>\nWhat is it? [/INST]« A bus. </s>»<s>[INST] Which color? [/INST]"
        "« Red. </s>»",
        id="llama-2, two turns with a picture",
    ),
    pytest.param(
        "llama_2",
        [("Hi", None)],
        LLAMA_2 + "Hi [/INST]",
        id="llama-2, open for the answer",
    ),
    pytest.param(
        "chatml",
        TWO_TURNS,
        CHATML + "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
        "«A bus.<|im_end|>»\n<|im_start|>user\nWhich color?<|im_end|>\n<|im_start|>assistant\n"
        "«Red.<|im_end|>»\n",
        id="chatml, two turns with a picture",
    ),
    pytest.param(
        "chatml",
        [("Hi", None)],
        CHATML + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        id="chatml, open for the answer",
    ),
    pytest.param(
        "plain",
        [("Describe it briefly.\n<image>", "a bus")],
        "<image>«a bus\n»",
        id="plain leaves out the request",
    ),
    pytest.param(
        "mini",
        [("what is it ?\n<image>", "red"), ("where ?", "top left")],
        "USER: <image>\nwhat is it ? ASSISTANT:« red </s>» USER: where ? ASSISTANT:"
        "« top left </s>»",
        id="mini, two turns with a picture",
    ),
    pytest.param(
        "mini_caption",
        [("<image>\nDescribe.", "red circle 4 top left")],
        "USER: <image>« red circle 4 top left </s>»",
        id="mini caption",
    ),
]


@pytest.mark.parametrize(("template", "turns", "expected"), GOLDEN)
def test_a_conversation_is_written_as_the_official_code_does(
    template: str, turns: list[tuple[str, str | None]], expected: str
) -> None:
    segments = render(template, turns, bos="<s>", eos=EOS.get(template, "</s>"))

    shown = "".join(f"«{s.text}»" if s.supervised else s.text for s in segments)
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Q\n<image>", "<image>\nQ"),
        ("<image>\nQ", "<image>\nQ"),
        ("  Q <image> ", "<image>\nQ"),
        ("<image>", "<image>"),
        ("  no picture ", "  no picture "),
    ],
)
def test_the_image_mark_goes_in_front(text: str, expected: str) -> None:
    assert normalise_image_mark(text) == expected


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2", "chatml", "mini"])
@pytest.mark.parametrize("has_image", [True, False])
def test_a_prompt_for_generation_begins_what_is_trained_on(template: str, has_image: bool) -> None:
    question = "What is it?"
    trained_on = [(f"{question}\n<image>" if has_image else question, "A bus.")]

    prompt = prompt_text(template, question, has_image=has_image)

    segments = render(template, trained_on, bos="<s>", eos=EOS.get(template, "</s>"))
    unanswered = itertools.takewhile(lambda segment: not segment.supervised, segments)
    assert prompt == "".join(segment.text for segment in unanswered)


@pytest.mark.parametrize("answer", ["A bus.", None], ids=["answered", "open"])
def test_chatml_is_smollm2_s_own_chat_template(answer: str | None) -> None:
    turns = [("What is it?", "A car."), ("And this?", answer)]
    said = [("user", "What is it?"), ("assistant", "A car."), ("user", "And this?")]
    said += [] if answer is None else [("assistant", answer)]

    segments = render("chatml", turns, bos="<|im_start|>", eos="<|im_end|>")

    assert "".join(
        segment.text for segment in segments
    ) == miniature_tokenizer().apply_chat_template(
        [{"role": role, "content": text} for role, text in said],
        chat_template=SMOLLM2_TEMPLATE,
        add_generation_prompt=answer is None,
        tokenize=False,
    )


def test_chatml_with_another_end_than_the_tokenizer_s_is_refused() -> None:
    with pytest.raises(DataError, match="the tokenizer's EOS is '</s>'"):
        render("chatml", [("q", "a")], bos="<s>", eos="</s>")


@pytest.mark.parametrize("template", ["plain", "mini_caption"])
@pytest.mark.parametrize("turns", [TWO_TURNS, [("no picture", "caption")]])
def test_a_caption_template_refuses_anything_but_one_caption(
    template: str, turns: list[tuple[str, str | None]]
) -> None:
    with pytest.raises(DataError, match="one picture and one caption"):
        render(template, turns, bos="<s>", eos="</s>")


def test_an_unknown_template_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="'alpaca' is unknown; known are mini, "):
        render("alpaca", [("q", "a")], bos="<s>", eos="</s>")
