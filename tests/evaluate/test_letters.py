"""Letters are compared as the token that really comes next, and a batch changes none of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from scalesweep.errors import DataError
from scalesweep.evaluate.letters import (
    EncodedLetters,
    LetterChooser,
    batches,
    choose,
    encode,
    likeliest,
    max_tokens_of,
)
from scalesweep.evaluate.questions import Letters
from scalesweep.models.loading import OnDevice, load_weights
from scalesweep.models.replica import Replica
from scalesweep.models.split import Split
from scalesweep.specs import Method
from tests.data.official_files import llama_like_tokenizer
from tests.models.checkpoints import tuned
from tests.models.ranks import alone, together

HEADER = "about  history.\n\n"
SHOTS = tuple(f"what is {n} ?\nA. a\nAnswer: {'ABCD'[n]}\n\n" for n in range(3))
ASKED = Letters(header=HEADER, shots=SHOTS, question="what is red ?\nA. a\nAnswer:")


def word_tokenizer(*words: str, bos: bool = True) -> PreTrainedTokenizerFast:
    """One token a word, split at white space; unknown words are <unk>."""
    pieces = ["<unk>", "<s>", "</s>", *words]
    tokenizer = Tokenizer(
        models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's: a token carries the space in front of it; there is no BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["Answer: A Answer: B Answer: C Answer: D A B C D"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="Ā")


WORDS = ["about", "history.", "what", "is", "?", "A.", "a", "Answer:", *"ABCD", *"012", "red"]


def test_a_letter_is_the_token_after_answer_where_tokens_carry_their_space() -> None:
    tokenizer = byte_tokenizer()

    letters = encode(tokenizer, ASKED).letter_ids

    assert tokenizer.convert_ids_to_tokens(list(letters.values())) == ["ĠA", "ĠB", "ĠC", "ĠD"]
    assert tokenizer("A")["input_ids"][-1] != letters["A"]


def test_a_letter_is_the_token_after_answer_where_a_bare_one_would_be_read_as_two_spaces() -> None:
    tokenizer = llama_like_tokenizer(extra=["▁Answer:", "▁A", "▁B", "▁C", "▁D"])

    letters = encode(tokenizer, ASKED).letter_ids

    assert tokenizer.convert_ids_to_tokens(list(letters.values())) == ["▁A", "▁B", "▁C", "▁D"]
    assert tokenizer.convert_ids_to_tokens(tokenizer(" A")["input_ids"]) == ["<s>", "▁", "▁A"]


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        # B, C and D become a space and a byte each
        (llama_like_tokenizer(), "the letter is not one token more"),
        (word_tokenizer("Answer:", "A", "B"), "does not know the letters A, B, C, D apart"),
        (word_tokenizer("Answer:", "A", "B", "C"), "does not know the letters A, B, C, D apart"),
    ],
    ids=["several tokens", "two unknown", "one unknown"],
)
def test_a_tokenizer_that_cannot_compare_the_letters_is_refused(
    tokenizer: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(tokenizer, ASKED)


def test_the_prompt_is_header_shots_and_question_behind_the_tokenizers_own_bos() -> None:
    tokenizer = word_tokenizer(*WORDS)

    encoded = encode(tokenizer, ASKED)

    text = "<s> about history. " + " ".join(
        f"what is {n} ? A. a Answer: {'ABCD'[n]}" for n in range(3)
    )
    whole = f"{text} what is red ? A. a Answer:"
    assert tokenizer.convert_ids_to_tokens(encoded.ids.tolist()) == whole.split()
    assert encoded.num_shots == 3


# <s> about history. = 3 tokens, a shot 8, the question 7: 34 with three shots.
@pytest.mark.parametrize(
    ("max_tokens", "num_shots", "num_tokens"),
    [(34, 3, 34), (33, 2, 26), (26, 2, 26), (25, 1, 18), (17, 0, 10), (10, 0, 10)],
)
def test_shots_are_left_out_from_the_end_until_it_fits(
    max_tokens: int, num_shots: int, num_tokens: int
) -> None:
    tokenizer = word_tokenizer(*WORDS)

    encoded = encode(tokenizer, ASKED, max_tokens=max_tokens)

    assert (encoded.num_shots, len(encoded.ids)) == (num_shots, num_tokens)
    words = tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assert [word for word in words if word in "012"] == list("012")[:num_shots]
    assert words[-7:] == ["what", "is", "red", "?", "A.", "a", "Answer:"]


def test_a_question_that_does_not_fit_alone_is_refused_by_name() -> None:
    with pytest.raises(
        DataError, match=r"question 'history/3': 10 tokens without any shot.*reads 9"
    ):
        encode(word_tokenizer(*WORDS), ASKED, max_tokens=9, item="history/3")


def test_the_limit_is_the_official_one_or_a_shorter_context() -> None:
    assert max_tokens_of(LlamaConfig(max_position_embeddings=4096)) == 2048
    assert max_tokens_of(LlamaConfig(max_position_embeddings=256)) == 256


def test_the_prefix_is_what_every_question_of_a_subject_begins_with() -> None:
    tokenizer = byte_tokenizer()
    questions = ["who ?\nAnswer:", "1 + 1\nAnswer:", "\nwhere ?\nAnswer:"]

    encoded = [
        encode(tokenizer, Letters(header=HEADER, shots=SHOTS, question=text)) for text in questions
    ]

    assert len({prompt.prefix for prompt in encoded[:2]}) == 1
    before = tokenizer.decode(list(encoded[0].prefix))
    assert before == HEADER + "".join(SHOTS)
    assert all(prompt.num_prefix_tokens < len(prompt.ids) for prompt in encoded)


def test_the_last_token_of_a_prompt_is_never_of_the_prefix() -> None:
    asked = Letters(header="what is ", shots=(), question="")

    encoded = encode(word_tokenizer(*WORDS, bos=False), asked)

    assert (len(encoded.ids), encoded.num_prefix_tokens) == (2, 1)


@pytest.mark.parametrize(
    ("log_probs", "letter"),
    [
        ({"A": -1.0, "B": -0.5, "C": -2.0}, "B"),
        ({"A": -1.0, "B": -1.0, "C": -1.0}, "A"),
        ({"A": -3.0, "B": -1.0, "C": -1.0}, "B"),
        ({"A": float("-inf"), "B": float("-inf")}, "A"),
    ],
)
def test_of_equal_letters_the_first_is_chosen(log_probs: dict[str, float], letter: str) -> None:
    assert likeliest(log_probs) == letter


# ---- what a model says ---------------------------------------------------------------------------

VOCABULARY = 132
LETTER_IDS = {"A": 40, "B": 17, "C": 90, "D": 3}


def small(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.125,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def prompts(count: int = 12, *, prefix: int = 60, seed: int = 1) -> list[EncodedLetters]:
    """Of one subject, 5 to 60 tokens behind the same beginning."""
    random = np.random.default_rng(seed)
    common = random.integers(5, VOCABULARY, prefix)
    return [
        EncodedLetters(
            ids=np.concatenate([common, random.integers(5, VOCABULARY, length)]).astype(np.int32),
            num_prefix_tokens=prefix,
            letter_ids=LETTER_IDS,
            num_shots=5,
        )
        for length in random.integers(5, 60, count)
    ]


@torch.no_grad()
def plainly(model: Any, prompt: EncodedLetters) -> dict[str, float]:
    """By the model's whole forward, one prompt at a time."""
    logits = model(input_ids=torch.from_numpy(prompt.ids.astype(np.int64))[None]).logits[0, -1]
    log_probs = logits.double().log_softmax(dim=-1)
    return {letter: log_probs[token].item() for letter, token in LETTER_IDS.items()}


def furthest(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> float:
    return max(
        abs(a[letter] - b[letter]) for a, b in zip(found, expected, strict=True) for letter in b
    )


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("prefix", [0, 60])
def test_a_batch_of_several_lengths_says_what_each_prompt_says_alone(
    share_prefix: bool, prefix: int
) -> None:
    model, asked = small(), prompts(prefix=prefix)

    found = choose(model, asked, share_prefix=share_prefix)

    expected = [plainly(model, prompt) for prompt in asked]
    assert furthest(found, expected) < 1e-5
    assert [likeliest(one) for one in found] == [likeliest(one) for one in expected]
    assert len({likeliest(one) for one in expected}) > 1


def test_prompts_of_equal_length_say_the_same_bit_for_bit_in_any_batch() -> None:
    model = small()
    asked = [
        EncodedLetters(
            ids=prompt.ids[:64], num_prefix_tokens=60, letter_ids=LETTER_IDS, num_shots=5
        )
        for prompt in prompts()
    ]

    together = choose(model, asked)

    assert together[::-1] == choose(model, asked[::-1])


def test_a_chooser_reads_a_subjects_beginning_once() -> None:
    model, history, law = small(), prompts(8), prompts(8, seed=2)
    asked = [*history, *law]
    read = list[tuple[int, int]]()
    model.model.register_forward_pre_hook(
        lambda _, __, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    chooser = LetterChooser(model)

    found: dict[int, dict[str, float]] = {}
    for places in batches(asked, batch_size=3):
        found |= dict(zip(places, chooser.choose([asked[n] for n in places]), strict=True))

    assert [shape for shape in read if shape[0] == 1] == [(1, 60), (1, 60)]
    assert len(read) == 2 + 3 + 3  # eight prompts in batches of 3 are three batches
    assert furthest([found[n] for n in range(16)], [plainly(model, p) for p in asked]) < 1e-5


def test_prompts_of_several_subjects_in_one_batch_share_nothing_and_stay_right() -> None:
    model, asked = small(), [*prompts(3), *prompts(3, seed=2)]

    found = choose(model, asked)

    assert furthest(found, [plainly(model, prompt) for prompt in asked]) < 1e-5


def test_a_model_that_forgets_its_beginning_is_asked_whole_prompts() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=16,
    )
    model, asked = MistralForCausalLM(config).eval(), prompts(4)

    found = choose(model, asked)

    assert furthest(found, [plainly(model, prompt) for prompt in asked]) < 1e-5


@pytest.mark.parametrize("method", [Method.full, Method.lora])
def test_a_llava_is_asked_without_a_picture(tmp_path: Path, method: Method) -> None:
    model, asked = tuned(method, tmp_path), prompts(5)

    found = choose(model, asked)

    assert furthest(found, [plainly(model, prompt) for prompt in asked]) < 1e-5


def chosen_by_parts(replica: Replica, folder: Path, *layers: range) -> list[dict[str, float]]:
    model = load_weights(
        LlamaForCausalLM,
        folder,
        dtype=torch.float32,
        placement=Split(OnDevice(replica.device), replica, layers),
    )
    chooser, asked = LetterChooser(model), prompts(6)
    return [*chooser.choose(asked[:4]), *chooser.choose(asked[4:])]


def test_a_model_that_is_split_over_ranks_says_what_it_says_whole(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    whole = alone(chosen_by_parts, tmp_path / "model", range(3))

    split = together(
        tmp_path / "ranks",
        chosen_by_parts,
        3,
        tmp_path / "model",
        range(1),
        range(1, 2),
        range(2, 3),
    )

    assert split == [whole] * 3


def test_only_the_last_places_logits_are_computed() -> None:
    model = small()
    shapes = list[tuple[int, ...]]()
    model.lm_head.register_forward_hook(lambda _, __, logits: shapes.append(tuple(logits.shape)))

    choose(model, prompts(5))

    assert shapes == [(1, 1, VOCABULARY), (5, 1, VOCABULARY)]


def test_log_probabilities_are_of_the_whole_vocabulary() -> None:
    (found,) = choose(small(), prompts(1))

    assert sum(np.exp(list(found.values()))) < 0.9  # the other 128 words have the rest


def test_batches_keep_one_beginning_each_and_leave_nothing_out() -> None:
    asked = [*prompts(5), *prompts(4, seed=2)]
    order = [0, 5, 1, 6, 2, 7, 3, 8, 4]  # mixed
    mixed = [asked[place] for place in order]

    made = batches(mixed, batch_size=2)

    assert sorted(place for batch in made for place in batch) == list(range(9))
    assert all(len({mixed[place].prefix for place in batch}) == 1 for batch in made)
    assert [len(batch) for batch in made] == [2, 2, 1, 2, 2]
    lengths = [len(mixed[place].ids) for batch in made[:3] for place in batch]
    assert lengths == sorted(lengths)
