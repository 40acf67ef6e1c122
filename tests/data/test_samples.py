"""Training sets: mixed from files, in tokens and pixels, with a cache that may be lost."""

from __future__ import annotations

import json
import multiprocessing
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalesweep.data import index as index_module
from scalesweep.data.images import picture_defect, read_pixels
from scalesweep.data.pixels import Picture, PixelSource
from scalesweep.data.samples import TrainingSet, load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError
from scalesweep.specs import Method, TrainingSpec
from tests.data.official_files import (
    item,
    llama_like_tokenizer,
    training_spec,
    write_items,
    write_picture,
)

TURNS = ("what color is the circle ?", "red", "where is the circle ?", "top left")
WORDS = "USER: what color is the circle ? ASSISTANT: red </s> USER: where is the circle ? "
WORDS += "ASSISTANT: top left </s>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures with questions and captions, and two conversations without."""
    folder = tmp_path / "d"
    for name in ("a.png", "b.jpg"):
        write_picture(folder / "images" / name)
    with_picture = (f"{TURNS[0]}\n<image>", *TURNS[1:])
    write_items(
        folder / "instruct.json",
        [item(*with_picture, image="a.png"), item(*with_picture, image="b.jpg", item_id="b")],
    )
    write_items(
        folder / "captions.json",
        [item("Describe.\n<image>", "red circle 4 top left", image=f) for f in ("a.png", "b.jpg")],
    )
    write_items(
        folder / "text.json",
        [item("what is 1 plus 2 ?", "3", item_id="t0"), item(*TURNS, item_id="t1")],
    )
    return folder


def loaded(root: Path, spec: TrainingSpec, tokenizer: Any = None) -> TrainingSet:
    return load_training_set(
        spec,
        roots={"d": root},
        tokenizer=tokenizer or miniature_tokenizer(),
        cache=root.parent / "cache",
    )


def ids(text: str, *, patches: int = 0) -> list[int]:
    """Ids of words, with that many image tokens after the first one."""
    found: list[int] = miniature_tokenizer()(text)["input_ids"]
    return [found[0], *[4] * patches, *found[1:]]


MIX = (("instruct.json", "images"), ("text.json", ""))


def test_sources_are_joined_in_their_order(root: Path) -> None:
    samples = loaded(root, training_spec(*MIX))

    assert len(samples) == 4
    assert [samples[n].sample_id for n in range(4)] == ["a", "b", "t0", "t1"]
    assert samples[0].image == root / "images" / "a.png"
    assert [samples[n].image is None for n in range(4)] == [False, False, True, True]
    assert [samples.has_image(n) for n in range(4)] == [True, True, False, False]
    assert samples[3].text == "red top left"
    with pytest.raises(IndexError):
        samples[4]


def test_a_picture_takes_one_token_a_patch(root: Path) -> None:
    for side, patches in ((32, 16), (48, 36)):
        sample = loaded(root, training_spec(*MIX, side=side))[0]

        assert sample.input_ids.tolist() == ids(WORDS, patches=patches)
        assert sample.input_ids.dtype == np.int32
        answers = [word in ("red", "top", "left", "</s>") for word in WORDS.split()]
        assert sample.loss_weights.tolist() == [0.0] * patches + [float(a) for a in answers]


def test_a_caption_is_all_that_stage_1_learns(root: Path) -> None:
    spec = training_spec(("captions.json", "images"), method=Method.projector)

    sample = loaded(root, spec)[0]

    assert sample.input_ids.tolist() == ids("USER: red circle 4 top left </s>", patches=16)
    assert sample.loss_weights.tolist() == [0.0] * 17 + [1.0] * 6
    assert sample.text == "red circle 4 top left"


def test_a_language_model_learns_prompts_with_their_own_weight(root: Path) -> None:
    spec = training_spec(("text.json", ""), method=Method.language, prompt_loss_weight=0.25)

    samples = loaded(root, spec)

    # USER: what is 1 plus 2 ? ASSISTANT: 3 </s>; nothing predicts the first token
    assert samples[0].loss_weights.tolist() == [0.0] + [0.25] * 7 + [1.0] * 2
    assert samples.loss_weight_sums[0] == pytest.approx(7 * 0.25 + 2)


def test_a_tower_gets_captions_and_no_tokens(root: Path) -> None:
    spec = training_spec(("captions.json", "images"), method=Method.tower)

    samples = load_training_set(
        spec, roots={"d": root}, tokenizer=None, cache=root.parent / "cache"
    )

    assert samples[1].text == "red circle 4 top left"
    assert len(samples[1].input_ids) == len(samples[1].loss_weights) == 0
    assert samples.lengths.tolist() == [16, 16]
    assert samples.loss_weight_sums.tolist() == [1.0, 1.0]
    assert samples.pixels([1, 0]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(training_spec(*MIX), id="mix"),
        pytest.param(training_spec(*MIX, prompt_loss_weight=0.3), id="prompts too"),
        pytest.param(
            training_spec(("captions.json", "images"), method=Method.projector), id="captions"
        ),
    ],
)
def test_lengths_and_weights_are_known_without_reading_samples(
    root: Path, spec: TrainingSpec
) -> None:
    samples = loaded(root, spec)

    every = [samples[n] for n in range(len(samples))]
    assert samples.lengths.tolist() == [len(s.input_ids) for s in every]
    assert samples.loss_weight_sums.tolist() == pytest.approx([s.loss_weights.sum() for s in every])
    assert samples.num_supervised.tolist() == [int((s.loss_weights != 0).sum()) for s in every]


def test_bos_is_neither_learned_nor_lost(root: Path) -> None:
    write_items(root / "v.json", [item("Who are you ?\n<image>", "I am Vicuna .", image="a.png")])
    spec = training_spec(("v.json", "images"), template="vicuna_v1", prompt_loss_weight=0.5)

    samples = loaded(root, spec, llama_like_tokenizer())

    assert samples[0].input_ids[0] == 1
    assert samples[0].loss_weights[0] == 0.0
    assert samples.loss_weight_sums[0] == pytest.approx(samples[0].loss_weights.sum())


def test_pixels_are_the_towers_and_come_in_the_asked_order(root: Path) -> None:
    samples = loaded(root, training_spec(*MIX))

    pixels = samples.pixels([1, 0, 1])

    expected = [read_pixels(root / "images" / name, 32) for name in ("b.jpg", "a.png", "b.jpg")]
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.stack(expected))


def test_two_items_may_show_one_picture(root: Path) -> None:
    one = item(f"<image>\n{TURNS[0]}", "red", image="b.jpg")
    other = item(f"<image>\n{TURNS[2]}", "top left", image="b.jpg")
    write_items(root / "instruct.json", [one, item(*TURNS), other])

    samples = loaded(root, training_spec(*MIX))

    assert np.array_equal(samples.pixels([0]), samples.pixels([2]))


def test_a_blind_set_reads_no_picture(root: Path) -> None:
    samples = loaded(root, training_spec(*MIX, blind=True))

    assert samples.pixels([0, 1]).shape == (2, 3, 32, 32)
    assert not samples.pixels([0, 1]).any()
    assert not list((root.parent / "cache").glob("pixels-*"))


def test_max_items_takes_the_first(root: Path) -> None:
    samples = loaded(root, training_spec(*MIX, max_items=1))

    assert [samples[n].sample_id for n in range(len(samples))] == ["a", "t0"]


def cut_jpeg(root: Path) -> None:
    file = root / "images" / "b.jpg"
    file.write_bytes(file.read_bytes()[:-4])


def edit(**changes: Any) -> Callable[[Path], None]:
    """Changes the second item of instruct.json."""

    def apply(root: Path) -> None:
        items = json.loads((root / "instruct.json").read_text("utf-8"))
        items[1] |= changes
        write_items(root / "instruct.json", items)

    return apply


def said(*texts: str) -> Callable[[Path], None]:
    return edit(conversations=item(*texts)["conversations"])


BROKEN = [
    pytest.param(
        cut_jpeg, r"picture images/b\.jpg cannot be read \(.*truncated", id="corrupt picture"
    ),
    pytest.param(edit(image="c.png"), r"picture images/c\.png is missing", id="missing picture"),
    pytest.param(said(TURNS[0], "red"), "<image> 0 times", id="no image mark"),
    pytest.param(said("<image>"), "question that has no answer", id="odd turns"),
    pytest.param(said("<image> where", ""), "answer 1 is empty", id="empty answer"),
    pytest.param(said("<image> where", "zebra"), "holds 'zebra', which", id="unknown word"),
    pytest.param(said("<image> where", "red </s>"), "special token '</s>'", id="eos in text"),
    pytest.param(said("<image> <pad>", "red"), "special token '<pad>'", id="pad in text"),
    pytest.param(
        said("<image> where", "red " * 300), "is 320 tokens long, over max_seq_len 256", id="long"
    ),
]


@pytest.mark.parametrize(("damage", "defect"), BROKEN)
def test_a_broken_item_stops_the_stage_by_name(
    root: Path, damage: Callable[[Path], None], defect: str
) -> None:
    damage(root)

    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match=defect) as caught:
            loaded(root, training_spec(*MIX))
        assert str(caught.value).startswith(f"{root / 'instruct.json'}, item 1 (id 'b'): ")
        assert "on_broken_item" in str(caught.value)


@pytest.mark.parametrize(("damage", "defect"), BROKEN)
def test_a_broken_item_can_be_skipped_and_is_listed(
    root: Path, damage: Callable[[Path], None], defect: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(root)

    samples = loaded(root, training_spec(*MIX, on_broken_item="skip"))

    assert [samples[n].sample_id for n in range(len(samples))] == ["a", "t0", "t1"]
    assert len(samples.skipped) == 1
    assert samples.skipped[0] in caplog.text
    assert samples.pixels([0]).shape == (1, 3, 32, 32)
    assert samples.skipped[0].startswith("d/instruct.json, item 1 (id 'b'): ")
    assert str(root) not in samples.skipped[0]  # the same wherever the data lies
    assert re.search(defect, samples.skipped[0])


def test_all_broken_items_are_counted(root: Path) -> None:
    write_items(
        root / "text.json", [item("who", ""), item("who", "zebra"), item("who owns", "red")]
    )

    with pytest.raises(DataError, match=r"item 0 .*; 1 more of 3 items are broken"):
        loaded(root, training_spec(("text.json", "")))


def test_captions_refuse_conversations(root: Path) -> None:
    for file, folder, defect in (
        ("instruct.json", "images", "has 2 answers and a picture"),
        ("text.json", "", "has 1 answers and no picture"),
    ):
        with pytest.raises(DataError, match=defect):
            loaded(root, training_spec((file, folder), method=Method.projector))


def test_a_language_model_alone_refuses_pictures(root: Path) -> None:
    with pytest.raises(DataError, match="but the language model is trained alone"):
        loaded(root, training_spec(("instruct.json", "images"), method=Method.language))


def test_a_data_set_without_a_folder_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="data set 'd' has no folder here"):
        load_training_set(
            training_spec(*MIX), roots={}, tokenizer=miniature_tokenizer(), cache=root
        )
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        loaded(root, training_spec(("gone.json", "")))


def contents(samples: TrainingSet) -> list[Any]:
    every = [samples[n] for n in range(len(samples))]
    return [(s.sample_id, s.input_ids.tolist(), s.loss_weights.tolist(), s.text) for s in every]


def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files whose index is made, from now on."""
    names: list[str] = []
    build = index_module._build

    def counting(source: Any, encoder: Any) -> Any:
        names.append(source.path.name)
        return build(source, encoder)

    monkeypatch.setattr(index_module, "_build", counting)
    return names


def test_the_second_time_nothing_is_prepared_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = built(monkeypatch)

    first = loaded(root, training_spec(*MIX))
    again = loaded(root, training_spec(*MIX))
    other_resolution = loaded(root, training_spec(*MIX, side=48, prompt_loss_weight=0.5))

    assert names == ["instruct.json", "text.json"]
    assert contents(first) == contents(again)
    assert np.array_equal(first.pixels([0, 1]), again.pixels([0, 1]))
    assert other_resolution.pixels([0]).shape == (1, 3, 48, 48)


def test_what_determines_the_samples_makes_a_new_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = built(monkeypatch)
    loaded(root, training_spec(("text.json", "")))

    loaded(root, training_spec(("text.json", ""), max_items=1))
    loaded(root, training_spec(("text.json", ""), template="vicuna_v1"), llama_like_tokenizer())
    write_items(root / "text.json", [item("what", "red")])
    changed = loaded(root, training_spec(("text.json", "")))

    assert len(names) == 4
    assert changed[0].text == "red"


def test_a_changed_picture_is_checked_and_read_again(root: Path) -> None:
    before = loaded(root, training_spec(*MIX)).pixels([0])
    write_picture(root / "images" / "a.png", color=(0, 255, 0))

    after = loaded(root, training_spec(*MIX)).pixels([0])

    assert not np.array_equal(before, after)
    (root / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"item 0 \(id 'a'\): picture .*a\.png is missing"):
        loaded(root, training_spec(*MIX))


def test_a_mended_picture_is_no_longer_skipped(root: Path) -> None:
    whole = (root / "images" / "b.jpg").read_bytes()
    cut_jpeg(root)
    assert len(loaded(root, training_spec(*MIX, on_broken_item="skip"))) == 3

    (root / "images" / "b.jpg").write_bytes(whole)

    assert len(loaded(root, training_spec(*MIX))) == 4


@pytest.mark.parametrize("damage", ["cut", "byte", "empty"])
def test_a_damaged_cache_is_rebuilt(root: Path, damage: str) -> None:
    first = loaded(root, training_spec(*MIX))
    expected, pixels = contents(first), first.pixels([0, 1]).copy()
    files = list((root.parent / "cache").iterdir())
    assert len(files) == 3
    for file in files:
        content = bytearray(file.read_bytes())
        middle = len(content) // 2
        if damage == "byte":
            content[middle] ^= 0xFF
        file.unlink()  # what is mapped stays as it was
        file.write_bytes(content if damage == "byte" else content[: {"cut": middle}.get(damage, 0)])

    samples = loaded(root, training_spec(*MIX))

    assert contents(samples) == expected
    assert np.array_equal(samples.pixels([0, 1]), pixels)


def load_at_once(root: Path, barrier: Any, answers: Any) -> None:
    barrier.wait()
    samples = loaded(root, training_spec(*MIX))
    answers.put((contents(samples), int(samples.pixels([0, 1]).sum())))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and threads
def test_processes_may_fill_the_cache_at_once(root: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(3), fork.Queue()
    workers = [fork.Process(target=load_at_once, args=(root, barrier, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()

    found = [answers.get(timeout=60) for _ in workers]

    for worker in workers:
        worker.join()
    assert found[0] == found[1] == found[2]
    names = [path.name for path in (root.parent / "cache").iterdir()]
    assert len(names) == 3  # two indices, one set of pixels, nothing half-written beside them
    assert not any(name.startswith(".") for name in names)


def test_pictures_over_the_limit_are_read_when_asked_for(root: Path, tmp_path: Path) -> None:
    paths = [root / "images" / name for name in ("a.png", "b.jpg")]
    source = PixelSource(
        lambda n: Picture(paths[n], f"item {n}"),
        index_module.picture_stamps(paths),
        side=32,
        cache=tmp_path / "none",
        limit_bytes=100,
    )

    assert np.array_equal(source(np.array([1])), read_pixels(paths[1], 32)[None])
    assert not (tmp_path / "none").exists()
    paths[0].unlink()
    with pytest.raises(DataError, match=r"item 0: picture .*a\.png is missing"):
        source(np.array([1, 0]))


def test_a_picture_that_breaks_when_decoded_names_its_item(root: Path) -> None:
    """Pixels that are no zlib stream under a right checksum: only decoding finds that."""
    file = root / "images" / "a.png"
    content = file.read_bytes()
    at = content.index(b"IDAT")
    length = int.from_bytes(content[at - 4 : at], "big")
    body = b"IDAT" + bytes(length)
    checksum = zlib.crc32(body).to_bytes(4, "big")
    file.write_bytes(content[:at] + body + checksum + content[at + 4 + length + 4 :])
    assert picture_defect(file) is None

    with pytest.raises(DataError, match=r"item 0 \(id 'a'\): picture .*a\.png cannot be read"):
        loaded(root, training_spec(*MIX, on_broken_item="skip"))
