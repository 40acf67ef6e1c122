"""An answer ends at its end token, or before a stop string, wherever tokens are cut."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scalesweep.evaluate.answer_end import AnswerEnd


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and a few pairs of them: "##" is one token, "#" another."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["## ## a cat a cat"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


TOKENIZER = byte_tokenizer()


def tokens(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def end(*stop_strings: str) -> AnswerEnd:
    return AnswerEnd(TOKENIZER, end_tokens=[TOKENIZER.eos_token_id], stop_strings=stop_strings)


@pytest.mark.parametrize(
    ("said", "stops", "text"),
    [
        pytest.param("a cat\n### B", ["###"], "a cat", id="at the first of it"),
        pytest.param("a cat\n### B ### C", ["###"], "a cat", id="only the first time"),
        pytest.param("a cat. USER: b", ["###", "USER:"], "a cat.", id="any of them"),
        pytest.param("###", ["###"], "", id="nothing in front"),
        pytest.param("a ## b", ["###"], "a ## b", id="a part of it is none"),
        pytest.param("a caté\nb", ["é\n"], "a cat", id="several bytes to a letter"),
    ],
)
def test_the_answer_is_what_stands_before_the_stop_string(
    said: str, stops: list[str], text: str
) -> None:
    rule = end(*stops)

    cut = rule.cut(tokens(said))

    assert rule.text(cut) == text
    assert sum(rule.reached(cut[: n + 1]) for n in range(len(cut))) <= 1
    assert tokens(said)[: len(cut)] == cut


def test_the_last_token_of_a_stop_string_ends_the_answer() -> None:
    rule = end("###")
    said = tokens("a cat ### b")

    ends = [n for n in range(1, len(said) + 1) if rule.reached(said[:n])]

    assert TOKENIZER.decode(said[: ends[0]]) == "a cat ###"
    assert rule.cut(said) == said[: ends[0]]


def test_an_end_token_ends_it_and_is_not_shown() -> None:
    rule = end()
    said = [*tokens(" a cat "), TOKENIZER.eos_token_id]

    assert rule.cut([*said, *tokens("and more")]) == said
    assert rule.text(said) == "a cat"


def test_a_stop_string_may_be_a_special_token_that_is_no_end_token() -> None:
    rule = end(TOKENIZER.bos_token)
    said = [*tokens("a cat"), TOKENIZER.bos_token_id, *tokens("b")]

    cut = rule.cut(said)

    assert cut == said[: len(tokens("a cat")) + 1]
    assert rule.text(cut) == "a cat"


def test_an_answer_of_nothing_but_its_end_is_empty() -> None:
    assert end().text([TOKENIZER.eos_token_id]) == ""
    assert end("###").text([]) == ""
