"""The miniature world's tokenizer: one token a word. `python -m scalesweep.data.tokenizer FOLDER`

The whole vocabulary is known, so nothing is learned: 132 words, split at white space. A byte-level
tokenizer would make rows twice as long for models this small.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scalesweep.data.readers import IMAGE
from scalesweep.data.world import vocabulary


def miniature_tokenizer() -> Any:
    """A fast Hugging Face tokenizer: ids 0 <pad>, 1 <s>, 2 </s>, 3 <unk>, 4 <image>, then words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": IMAGE},
        padding_side="right",
        model_max_length=512,
    )


def main(arguments: list[str]) -> int:
    """Write the tokenizer's folder."""
    if len(arguments) != 1:
        print("usage: python -m scalesweep.data.tokenizer FOLDER", file=sys.stderr)
        return 2
    miniature_tokenizer().save_pretrained(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
