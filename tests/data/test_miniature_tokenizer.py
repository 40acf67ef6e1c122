"""The shipped tokenizer is the one the code makes, and knows every word."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from scalesweep.data.tokenizer import main, miniature_tokenizer
from scalesweep.data.world import vocabulary

TEXT = "USER: <image>\nwhat color is the cross ? ASSISTANT: red </s>"
SHIPPED = Path(str(files("scalesweep"))) / "miniature" / "tokenizer"


def test_ids_are_the_places_in_the_vocabulary() -> None:
    tokenizer = miniature_tokenizer()
    words = vocabulary()

    assert len(tokenizer) == 132
    assert tokenizer(TEXT)["input_ids"] == [words.index(word) for word in TEXT.split()]
    assert tokenizer.convert_ids_to_tokens(list(range(132))) == words
    assert tokenizer.eos_token_id == 2
    assert tokenizer.pad_token_id == 0


def test_the_shipped_folder_gives_the_same_ids() -> None:
    shipped, made = AutoTokenizer.from_pretrained(SHIPPED), miniature_tokenizer()

    assert shipped.get_vocab() == made.get_vocab()
    assert shipped(TEXT)["input_ids"] == made(TEXT)["input_ids"]
    assert shipped.padding_side == "right"
    assert shipped.special_tokens_map == made.special_tokens_map
    everything = " ".join(vocabulary())
    assert shipped(everything)["input_ids"] == list(range(132))


def test_the_shipped_files_are_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 0
    assert main([]) == 2

    assert "usage" in capsys.readouterr().err
    shipped = {path.name: path.read_bytes() for path in SHIPPED.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == shipped
