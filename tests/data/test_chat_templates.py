"""Chat templates in Jinja say what our own templates say, to the last character."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from scalesweep.data.chat_templates import chat_template
from scalesweep.data.templates import TEMPLATES, Turn, render
from scalesweep.errors import DataError
from tests.data.test_templates import SMOLLM2_TEMPLATE

CAPTIONS = {"plain", "mini_caption"}
CHATS = sorted(set(TEMPLATES) - CAPTIONS)

Message = dict[str, Any]


def rendered(template: str, messages: list[Message], *, gap: str = "", **options: Any) -> str:
    texts, _ = render_jinja_template(
        conversations=[messages],
        chat_template=chat_template(template, gap=gap),
        bos_token="<s>",
        eos_token="</s>",
        **options,
    )
    return str(texts[0])


def ours(template: str, turns: list[Turn]) -> str:
    eos = "<|im_end|>" if template == "chatml" else "</s>"
    return "".join(segment.text for segment in render(template, turns, bos="<s>", eos=eos))


def question(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def with_picture(text: str) -> Message:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


@pytest.mark.parametrize("template", CHATS)
@pytest.mark.parametrize("text", ["Who are you?", '  It\'s "so"\\n {{x}} \n', ""])
def test_an_open_question(template: str, text: str) -> None:
    said = rendered(template, [question(text)], add_generation_prompt=True)

    assert said == ours(template, [(text, None)])


@pytest.mark.parametrize("template", CHATS)
@pytest.mark.parametrize("text", ["What is this?", " What\nis this? ", ""])
def test_a_question_about_a_picture(template: str, text: str) -> None:
    said = rendered(template, [with_picture(text)], add_generation_prompt=True)

    assert said == ours(template, [(f"<image>\n{text}", None)])


@pytest.mark.parametrize("template", CHATS)
def test_a_picture_that_is_marked_in_the_text_goes_in_front(template: str) -> None:
    text = "What is\n<image> this?"

    assert rendered(template, [question(text)], add_generation_prompt=True) == ours(
        template, [(text, None)]
    )


@pytest.mark.parametrize("template", CHATS)
def test_a_conversation_of_several_turns(template: str) -> None:
    messages = [
        with_picture("What is this?"),
        answer("A cup."),
        question("Which colour?"),
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
        question("Sure?"),
    ]

    assert rendered(template, messages, add_generation_prompt=True) == ours(
        template,
        [("<image>\nWhat is this?", "A cup."), ("Which colour?", "Red."), ("Sure?", None)],
    )
    assert rendered(template, messages[:4]) == ours(
        template, [("<image>\nWhat is this?", "A cup."), ("Which colour?", "Red.")]
    )


def test_chatml_is_said_as_smollm2_says_it() -> None:
    messages = [question("Hi"), answer("Hello."), question("Who?")]

    said = rendered("chatml", messages, add_generation_prompt=True)

    # Rendered by hand from SmolLM2-135M-Instruct's chat_template.
    assert said == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_message_replaces_the_trained_one() -> None:
    messages = [{"role": "system", "content": "Be brief."}, question("Who?")]

    said = rendered("vicuna_v1", messages, add_generation_prompt=True)

    assert said == "Be brief. USER: Who? ASSISTANT:"


def test_the_gap_stands_between_picture_and_line_break_alone() -> None:
    said = rendered("mini", [with_picture("Who?")], gap=" ", add_generation_prompt=True)

    assert said == "USER: <image> \nWho? ASSISTANT:"
    assert rendered("mini", [question("Who?")], gap=" ", add_generation_prompt=True) == (
        "USER: Who? ASSISTANT:"
    )


@pytest.mark.parametrize("template", [*sorted(CAPTIONS), "unheard_of"])
def test_captions_are_no_conversations(template: str) -> None:
    with pytest.raises(DataError, match="has no chat template; those that have are"):
        chat_template(template)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("open_end", [True, False])
def test_chatml_says_what_smollm2_s_own_chat_template_says(
    system: str | None, open_end: bool
) -> None:
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [question("Who are you?"), answer("SmolLM."), question("Sure?")]
    messages += [] if open_end else [answer("Yes.")]

    own, _ = render_jinja_template(
        conversations=[messages], chat_template=SMOLLM2_TEMPLATE, add_generation_prompt=open_end
    )

    assert rendered("chatml", messages, add_generation_prompt=open_end) == own[0]
