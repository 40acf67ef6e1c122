"""Token ids and learned spans, for word-level and LLaMA-like tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from scalesweep.data.templates import Segment, render
from scalesweep.data.tokenize import (
    ANSWER,
    MASKED,
    PROMPT,
    EncodedText,
    TextEncoder,
    expand_images,
    image_token_id,
)
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError
from tests.data.official_files import llama_like_tokenizer


def encoded(
    tokenizer: Any, template: str, *turns: tuple[str, str | None]
) -> tuple[list[str], list[int]]:
    """Tokens and kinds of a conversation."""
    encoder = TextEncoder(tokenizer)
    result = encoder.encode([render(template, turns, bos=encoder.bos, eos=encoder.eos)])[0]
    assert isinstance(result, EncodedText), result
    ids = result.ids.tolist()
    tokens = [
        "<image>" if i == encoder.image_token_id else name for i, name in _named(tokenizer, ids)
    ]
    return tokens, result.kinds.tolist()


def _named(tokenizer: Any, ids: list[int]) -> list[tuple[int, str]]:
    known = [min(i, len(tokenizer) - 1) for i in ids]
    return list(zip(ids, tokenizer.convert_ids_to_tokens(known), strict=True))


def learned(tokens: list[str], kinds: list[int]) -> list[str]:
    return [token for token, kind in zip(tokens, kinds, strict=True) if kind == ANSWER]


MINI = [
    pytest.param(
        "mini",
        [("what color is the circle ?\n<image>", "red"), ("where is the circle ?", "top left")],
        "USER: <image> what color is the circle ? ASSISTANT: red </s> "
        "USER: where is the circle ? ASSISTANT: top left </s>",
        ["red", "</s>", "top", "left", "</s>"],
        id="two turns about a picture",
    ),
    pytest.param(
        "mini",
        [("what is 4 plus 2 ?", "6")],
        "USER: what is 4 plus 2 ? ASSISTANT: 6 </s>",
        ["6", "</s>"],
        id="text only",
    ),
    pytest.param(
        "mini_caption",
        [("<image>\nDescribe the picture.", "red circle 4 top left")],
        "USER: <image> red circle 4 top left </s>",
        ["red", "circle", "4", "top", "left", "</s>"],
        id="caption",
    ),
]


@pytest.mark.parametrize(("template", "turns", "tokens", "answer"), MINI)
def test_words_of_the_miniature_are_learned_in_answers_only(
    template: str, turns: list[tuple[str, str]], tokens: str, answer: list[str]
) -> None:
    found, kinds = encoded(miniature_tokenizer(), template, *turns)

    assert found == tokens.split()
    assert learned(found, kinds) == answer
    assert [kinds[i] for i, token in enumerate(found) if token == "<image>"] == [MASKED] * (
        found.count("<image>")
    )


def test_the_space_before_an_answer_belongs_to_its_first_token() -> None:
    tokens, kinds = encoded(llama_like_tokenizer(), "vicuna_v1", ("Who are you ?", "I am Vicuna ."))

    assert tokens[0] == "<s>"
    assert kinds[0] == MASKED
    assert learned(tokens, kinds) == ["▁I", "▁am", "▁Vicuna", "▁.", "</s>"]
    first = kinds.index(ANSWER)
    assert "".join(tokens[first - 4 : first]).endswith("ASSISTANT:")


def test_llama_2_learns_the_space_before_eos_and_not_the_next_bos() -> None:
    tokens, kinds = encoded(
        llama_like_tokenizer(), "llama_2", ("Who are you ?", "I"), ("<image>\nWho", "am")
    )

    assert learned(tokens, kinds) == ["▁I", "▁", "</s>", "▁am", "▁", "</s>"]
    assert tokens.count("<s>") == 2
    assert [kind for token, kind in zip(tokens, kinds, strict=True) if token == "<s>"] == [
        MASKED,  # the tokenizer's own
        PROMPT,  # the template's
    ]


def test_plain_learns_caption_and_newline() -> None:
    tokens, kinds = encoded(llama_like_tokenizer(), "plain", ("<image>", "The cup"))

    assert tokens == ["<s>", "<image>", "▁The", "▁cup", "<0x0A>"]
    assert kinds == [MASKED, MASKED, ANSWER, ANSWER, ANSWER]


def test_a_non_legacy_tokenizer_has_other_ids_and_the_same_learned_text() -> None:
    turns = [("Who are you ?", "I am Vicuna ."), ("Who are you ?", "The cup")]

    legacy = encoded(llama_like_tokenizer(legacy=True), "vicuna_v1", *turns)
    modern = encoded(llama_like_tokenizer(legacy=False), "vicuna_v1", *turns)

    assert learned(*legacy) == learned(*modern)
    assert legacy[0][legacy[0].index("</s>") + 1] == "▁USER"
    assert modern[0][modern[0].index("</s>") + 1] == "USER"


TEXTS = st.text(alphabet="abr é☃\n\t.?Th", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), st.booleans())
def test_spans_agree_with_the_official_arithmetic(
    turns: list[tuple[str, str]], has_image: bool
) -> None:
    if has_image:
        turns[0] = (f"{turns[0][0]}\n<image>", turns[0][1])
    segments = render("vicuna_v1", turns, bos="<s>", eos="</s>")

    result = LEGACY_ENCODER.encode([segments])[0]

    ids, labels = official_labels("".join(segment.text for segment in segments))
    assert isinstance(result, EncodedText)
    assert result.ids.tolist() == ids
    assert [i if k == ANSWER else -100 for i, k in zip(ids, result.kinds, strict=True)] == labels


LEGACY = llama_like_tokenizer()
LEGACY_ENCODER = TextEncoder(LEGACY)


def official_ids(text: str) -> list[int]:
    """LLaVA's tokenizer_image_token: pieces one by one, the first BOS kept."""
    pieces = [LEGACY(piece)["input_ids"] for piece in text.split("<image>")]
    ids = pieces[0]
    for piece in pieces[1:]:
        ids = [*ids, LEGACY_ENCODER.image_token_id, *piece[1:]]
    return ids


def official_labels(conversation: str) -> tuple[list[int], list[int]]:
    """LLaVA's preprocess_v1: lengths of rounds added up."""
    ids = official_ids(conversation)
    labels, at = [-100, *ids[1:]], 1
    for turn in conversation.split("</s>")[:-1]:
        instruction = turn.split(" ASSISTANT: ")[0] + " ASSISTANT: "
        length = len(official_ids(instruction)) - 2
        labels[at : at + length] = [-100] * length
        at += len(official_ids(turn))
    assert at == len(ids), "the official code would mask this sample wholly"
    return ids, labels


def test_an_open_prompt_is_how_the_trained_conversation_begins() -> None:
    encoder = TextEncoder(LEGACY)
    segments = render("vicuna_v1", [("<image>\nWho are you ?", "I")], bos="<s>", eos="</s>")
    trained = encoder.encode([segments])[0]
    assert isinstance(trained, EncodedText)
    expanded = expand_images(trained.ids, encoder.image_token_id, num_patches=4)

    prompt = encoder.prompt("vicuna_v1", "Who are you ?", num_patches=4)

    assert prompt.tolist() == expanded[: len(prompt)].tolist()
    assert len(expanded) == len(prompt) + 2  # "▁I", "</s>"
    assert prompt.tolist().count(encoder.image_token_id) == 4


def test_a_tokenizer_without_an_image_token_gets_the_next_free_id() -> None:
    assert image_token_id(LEGACY) == len(LEGACY)
    assert image_token_id(miniature_tokenizer()) == 4


def test_an_unknown_word_is_named() -> None:
    encoder = TextEncoder(miniature_tokenizer())
    segments = render("mini", [("what color is the hexagon ?", "red")], bos="", eos="</s>")

    (defect,) = encoder.encode([segments])

    assert defect == ("holds 'hexagon', which the tokenizer does not know (it would become <unk>)")
    with pytest.raises(DataError, match="'hexagon'"):
        encoder.prompt("mini", "what color is the hexagon ?", num_patches=0)


def test_an_answer_that_the_tokenizer_drops_is_a_defect() -> None:
    encoder = TextEncoder(miniature_tokenizer())

    (defect,) = encoder.encode([[Segment("USER: color", False), Segment(" \n </s>", True)]])

    assert isinstance(defect, str)
    assert "has no token of its own" in defect


@pytest.mark.parametrize("text", ["a <s> b", "</s>", "<unk>", "<image>"])
def test_special_tokens_in_plain_text_are_found(text: str) -> None:
    assert TextEncoder(LEGACY).special_token_in(text) in text
    assert TextEncoder(LEGACY).special_token_in("a < s > b </ s>") is None


def test_the_fingerprint_changes_with_the_tokenizer() -> None:
    prints = {
        TextEncoder(tokenizer).fingerprint
        for tokenizer in (LEGACY, llama_like_tokenizer(legacy=False), miniature_tokenizer())
    }

    assert len(prints) == 3
    assert TextEncoder(llama_like_tokenizer()).fingerprint == TextEncoder(LEGACY).fingerprint


def test_a_tokenizer_set_to_truncate_or_pad_is_not_obeyed() -> None:
    tokenizer = llama_like_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=500)

    prompt = TextEncoder(tokenizer).prompt("vicuna_v1", "Who are you ?", num_patches=0)

    assert (
        prompt.tolist()
        == TextEncoder(LEGACY).prompt("vicuna_v1", "Who are you ?", num_patches=0).tolist()
    )


def test_a_tokenizer_that_adds_eos_itself_is_refused() -> None:
    tokenizer = llama_like_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )

    with pytest.raises(DataError, match="adds tokens after a text by itself"):
        TextEncoder(tokenizer)


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = miniature_tokenizer()
    tokenizer.eos_token = None

    with pytest.raises(DataError, match="has no EOS token"):
        TextEncoder(tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(DataError, match="object is not a fast one"):
        TextEncoder(object())
