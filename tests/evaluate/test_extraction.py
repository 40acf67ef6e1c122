"""Free answers choose options by the two official rule sets, quirks included."""

from __future__ import annotations

import hashlib

import pytest

from scalesweep.evaluate.extraction import RULES, extract, matching_prompt

CURRENT, FIRST = RULES["current"], RULES["first_release"]
PETS = {"A": "teddy bear", "B": "rabbit", "C": "cat", "D": "dog"}
TWO = {"A": "yes", "B": "no"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("B: rabbit", "B"),
        ("The answer is B", "B"),
        ("b", None),  # upper case only
        ("A or B", None),  # two letters
        ("A, A", "A"),  # one letter twice
        ("it is a Rabbit", "B"),  # text, in lower case
        ("a cat and a dog", None),  # two texts
        ("catdog", None),
        ("cats", "C"),  # a part of a word is enough
        ("", None),
        ("a bird", None),
        ("I can't process this file.", "Z"),
        ("Sorry, I can't help with images of people yet. B", "Z"),
        ("Failed to obtain answer via API. B", None),
        ("Failed to obtain answer via API: dog", "D"),  # the text step looks all the same
    ],
)
def test_where_both_rule_sets_agree(answer: str, letter: str | None) -> None:
    assert extract(answer, PETS, CURRENT) == letter
    assert extract(answer, PETS, FIRST) == letter


@pytest.mark.parametrize(
    ("answer", "options", "current", "first_release"),
    [
        # the article: among the last four tokens only
        ("A person is riding", PETS, "A", "A"),
        ("A person is riding a horse", PETS, None, "A"),
        ("A dog sits on the grass", PETS, "D", "A"),
        ("A person with a rabbit is here", PETS, "B", "A"),
        ("B because it has long ears", PETS, None, "B"),
        # refusals that were added later
        ("Cannot determine the answer", PETS, "Z", None),
        ("I'm sorry, but without the image provided I cannot say", PETS, "Z", None),
        # the mark of none
        ("Z", PETS, "Z", None),
        ("E", PETS, None, "Z"),
        # a letter that is no option
        ("D", TWO, None, "D"),
        ("C", TWO, None, "C"),
        # the phrase, with its quirks
        ("The correct answer is **B**. Here is why: it has very long ears.", PETS, "B", "B"),
        ("The answer is b, since A is wrong and C is wrong too.", PETS, "B", None),
        ("A or C? I think the answer is C.", PETS, "C", None),
        ("The correct answer is cat", PETS, "C", "C"),
        ("The answer is dinosaur", PETS, "D", None),
        ("The answer is a bird", PETS, "A", None),
        ("The answer is c.", TWO, None, None),
        # long answers are not compared with the options' texts
        ("yes, I would say that this is so", TWO, None, "A"),
        ("yes, it is", TWO, "A", "A"),  # ten letters, twice five
    ],
)
def test_where_the_rule_sets_disagree_or_have_a_quirk(
    answer: str, options: dict[str, str], current: str | None, first_release: str | None
) -> None:
    assert extract(answer, options, CURRENT) == current
    assert extract(answer, options, FIRST) == first_release


def test_of_two_options_with_one_text_only_a_letter_chooses() -> None:
    twins = {"A": "red", "B": "blue", "C": "red"}

    assert extract("it is red", twins, CURRENT) is None
    assert extract("it is blue", twins, CURRENT) == "B"
    assert extract("C", twins, CURRENT) == "C"


def test_an_option_that_reads_none_is_an_option() -> None:
    options = {"A": "1", "B": "2", "C": "None"}

    assert extract("none", options, CURRENT) == "C"
    assert extract("C", options, CURRENT) == "C"


def test_the_matching_prompt_is_the_official_one() -> None:
    prompt = matching_prompt("What is it?", TWO, "Sure", CURRENT)

    assert prompt.startswith(
        "You are an AI assistant who will help me to match an answer with several options of a "
        "single-choice question. "
    )
    assert prompt.endswith(
        "Answer: Spider\nYour output: Z\nExample 3: \nQuestion: What is it??\n"
        "Options: There are several options: \nA. yes\nB. no\n\nAnswer: Sure\nYour output: "
    )
    assert "Your output: E" in matching_prompt("What is it?", TWO, "Sure", FIRST)


# Of the whole prompt, as VLMEvalKit's own build_prompt and build_prompt_cn make it of these.
@pytest.mark.parametrize(
    ("rules", "question", "digest"),
    [
        (
            CURRENT,
            "What is it?",
            "4c6719c8a84763c4b0e204204bb8305f0bb36b2e232c6fc3e981d7ccc0c3e345",
        ),
        (CURRENT, "这是什么", "0a08658bd86715800715bd59fcb8bdd676729ddf068f900d1ea698492f7a8e80"),
        (FIRST, "What is it?", "9677c32ee4b920a0a0cd3b5e44ba5be7a55dc9fc6cd9dcc7c6e59abe09900ae2"),
        (FIRST, "这是什么", "64707618704549aecd8c16023a9d4e6df27f36a598aaea7708759b30dae80fd1"),
    ],
)
def test_the_matching_prompt_is_the_official_one_to_the_byte(
    rules: object, question: str, digest: str
) -> None:
    prompt = matching_prompt(question, PETS, "{Sure}\n", rules)  # type: ignore[arg-type]

    assert hashlib.sha256(prompt.encode()).hexdigest() == digest
