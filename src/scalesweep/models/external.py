"""Checkpoints that no stage of the store made, understood from their small files alone.

    a LLaVA in Hugging Face's layout (llava-hf; what `export` writes): one linear layer or an MLP as
        projector, weights in 16 or 32 bit or in NF4
    adapters of peft (LoRA) over such a LLaVA or over a LLaMA
    a LLaMA language model, which is asked benchmarks without pictures

No library is needed for it, so a login node can plan with what it finds. A checkpoint's identity is
its commit in the hub's cache, else a hash over the bytes of what is read of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from scalesweep.config.model import TEMPLATES
from scalesweep.errors import ConfigError, StageError, StoreError
from scalesweep.models.hub import (
    HubId,
    cache_folder,
    file_defect,
    snapshot,
    tokenizer_defect,
    weights_defect,
)
from scalesweep.records import canonical_json
from scalesweep.rundir import read_json, sha256_of, write_json
from scalesweep.specs import LanguageModelSpec, Method, Precision, VisionTowerSpec

FACTS = "scalesweep.json"
"""What `export` writes beside the weights (study_export.py)."""
_CONFIG, _ADAPTERS = "config.json", "adapter_config.json"
NAME = "external"
"""Of the model in a stage's identity: what a folder is called is no part of what it holds."""

# What transformers takes where config.json is silent (LlamaConfig, CLIPVisionConfig, LlavaConfig):
# llava-hf's files name hardly more than what differs.
_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
_CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_LLAVA_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "model_type": "clip_vision_model",
}
# CLIP's own, which data/images.py normalises by.
_MEAN = [0.48145466, 0.4578275, 0.40821073]
_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True, kw_only=True)
class External:
    """One checkpoint, and what a generate stage has to be told about it."""

    name: str
    """For people: the folder's."""
    folder: Path
    identity: str
    """Declared identity of what is read of the folder."""
    base: Path | None
    """Folder of the model that adapters are over; None: the checkpoint is whole."""
    tokenizer: Path
    model: LanguageModelSpec
    tower: VisionTowerSpec | None
    method: Method | None
    """full, lora (adapters), qlora (4-bit weights, with adapters or without); None: a language
    model in 16 or 32 bit."""
    precision: Precision
    blind: bool
    adapter_rank: int | None = None
    stored_dtype: str | None = None
    """Of the weights, as config.json says it: float16, bfloat16, ...; None: not said."""

    @property
    def paths(self) -> dict[str, str]:
        """Where things lie, by role."""
        paths = {"checkpoint": self.folder, "tokenizer": self.tokenizer}
        if self.base is not None:
            paths["language_model"] = self.base
        return {role: str(path) for role, path in paths.items()}


def find(word: str) -> Path:
    """The folder that a word on the command line names: a path, or a repository in the hub's cache.

    Raises:
        ConfigError: there is no such folder.
    """
    path = Path(word).expanduser()
    if path.is_dir():
        return path.absolute()
    found = _cached(word)
    if found is not None:
        return found
    if path.exists():
        raise ConfigError(f"evaluate {word}: is a file; name the folder of a checkpoint")
    asked = _hub_id(word)
    fetch = f"; `{asked.download}` would fetch it from the hub" if asked else ""
    raise ConfigError(f"evaluate {word}: no such folder{fetch}")


def _hub_id(word: str) -> HubId | None:
    """owner/name or owner/name@revision."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", word)
    if match is None or word.startswith((".", "/")):
        return None
    return HubId(repository=match.group(1), revision=match.group(2) or "main")


def _cached(word: str) -> Path | None:
    asked = _hub_id(word)
    return None if asked is None else snapshot(asked)


def describe(
    folder: Path,
    *,
    cache: Path,
    base: str | None = None,
    template: str | None = None,
    in_4_bit: bool = False,
    tell: Tell = lambda _: None,
) -> External:
    """What a folder holds.

    cache: folder of derived files, where hashes are kept.
    base: folder of the model below adapters, where they name none that is here.
    template: conversation template; None: the one that the folder says or is known by.
    in_4_bit: hold the language model in NF4, whatever the files hold.
    tell: hears of what takes minutes.

    Raises:
        ConfigError: it is no checkpoint that can be asked, or something of it is missing.
    """
    facts = _facts(folder)
    adapters = _json(folder / _ADAPTERS)
    whole = folder if adapters is None else _base(folder, adapters, base)
    if base is not None and adapters is None:
        raise ConfigError(
            f"base_model={base}: {folder} has no adapter_config.json; leave it out, it is for "
            "adapters"
        )
    values = _json(whole / "config.json")
    if values is None:
        raise ConfigError(f"evaluate {whole}: {_no_model(whole)}")
    defect = weights_defect(whole) or (None if adapters is None else _adapter_defect(folder))
    if defect is not None:
        raise ConfigError(f"evaluate {whole}: is not whole: {defect}; fetch it again")
    tokenizer = next((f for f in (folder, whole) if tokenizer_defect(f) is None), None)
    if tokenizer is None:
        raise ConfigError(f"evaluate {folder}: has no tokenizer: {tokenizer_defect(folder)}")
    rank = None if adapters is None else _count(folder / _ADAPTERS, adapters, "r", None)
    quantized = _is_quantized(whole, values)
    identity = declared(folder, cache, tell)
    whole_identity = identity if whole == folder else declared(whole, cache, tell)
    model = replace(
        _language_model(whole, values),
        template=_template(folder, tokenizer, facts, template),
        weights=whole_identity,
        tokenizer=identity if tokenizer == folder else whole_identity,
    )
    tower = _tower(whole, values, whole_identity)
    if tower is not None:
        _check_pictures((folder, whole), tower, blind=bool(facts.get("blind")))
    method = _method(tower, has_adapters=adapters is not None, is_4_bit=in_4_bit or quantized)
    return External(
        name=folder.name,
        folder=folder,
        identity=identity,
        base=None if whole == folder else whole,
        tokenizer=tokenizer,
        model=model,
        tower=tower,
        method=method,
        precision=Precision.fp32 if _stored_dtype(values) == "float32" else Precision.bf16,
        blind=bool(facts.get("blind")),
        adapter_rank=rank,
        stored_dtype=_stored_dtype(values),
    )


def _method(tower: VisionTowerSpec | None, *, has_adapters: bool, is_4_bit: bool) -> Method | None:
    if is_4_bit:
        return Method.qlora
    if has_adapters:
        return Method.lora
    return None if tower is None else Method.full


def _facts(folder: Path) -> dict[str, Any]:
    """What `export` says of its directory; nothing of other folders."""
    facts = _json(folder / FACTS) or {}
    made = facts.get("export")
    return dict(made) if isinstance(made, Mapping) else {}


def _json(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return read_json(file)
    except FileNotFoundError:
        return None
    except (StoreError, OSError) as error:
        raise ConfigError(f"evaluate {file.parent}: {file.name} cannot be read") from error


def _no_model(folder: Path) -> str:
    if (folder / "stage.yaml").exists():
        return "is a stage of another kind; name one of base or tune"
    return (
        "is no model: it has neither config.json nor adapter_config.json; name a folder in Hugging "
        "Face's layout, what `export` wrote, or a base or tune stage of a store"
    )


def _base(folder: Path, adapters: Mapping[str, Any], given: str | None) -> Path:
    """The folder that adapters are over."""
    if adapters.get("peft_type", "LORA") != "LORA":
        raise ConfigError(
            f"evaluate {folder}: adapters of type {adapters['peft_type']}; only LORA can be asked"
        )
    named = given if given is not None else adapters.get("base_model_name_or_path")
    if not named:
        raise ConfigError(
            f"evaluate {folder}: its adapter_config.json names no base; say which with "
            "base_model=DIR, a LLaVA or LLaMA in Hugging Face's layout"
        )
    if not isinstance(named, str):
        raise _unfit(folder / _ADAPTERS, "base_model_name_or_path", named, "must be a text")
    places = [Path(named).expanduser()]
    if given is None and not places[0].is_absolute():
        places.insert(0, folder / named)
    revision = adapters.get("revision")
    at_revision = f"{named}@{revision}" if revision and given is None else str(named)
    for place in (*places, _cached(at_revision)):
        if place is not None and place.is_dir():
            return place.absolute()
    asked = _hub_id(at_revision)
    fetch = f"`{asked.download}`, or " if asked else ""
    raise ConfigError(
        f"evaluate {folder}: its base {named} is not here; {fetch}say where with base_model=DIR"
    )


def _adapter_defect(folder: Path) -> str | None:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).exists():
            return file_defect(folder / name)
    return "adapter_model.safetensors is missing (and so is adapter_model.bin)"


def _is_quantized(folder: Path, values: Mapping[str, Any]) -> bool:
    """Whether the files hold NF4 with double quantisation; other forms are refused."""
    if not values.get("quantization_config"):
        return False
    settings = _object(folder / _CONFIG, values, "quantization_config")
    wanted = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    }
    wrong = [f"{key}={settings.get(key)}" for key, v in wanted.items() if settings.get(key) != v]
    if wrong:
        raise ConfigError(
            f"evaluate {folder}: its weights are quantised in a form that is not read here "
            f"({', '.join(wrong)}); take the 16-bit weights, and load_4bit=true for NF4"
        )
    return True


# ---------------------------------------------------------------- shapes


def _language_model(folder: Path, values: Mapping[str, Any]) -> LanguageModelSpec:
    """Shape of the language model; template and identities are put in by the caller."""
    kind = values.get("model_type")
    if kind in ("llava", "llava_llama") and "text_config" not in values:
        raise ConfigError(
            f"evaluate {folder}: is in the layout of LLaVA's own code; take a converted one "
            "(llava-hf), or convert it with transformers' convert_llava_weights_to_hf"
        )
    if kind not in ("llava", "llama"):
        raise ConfigError(
            f"evaluate {folder}: model_type={kind}; only llava and llama can be asked"
        )
    file = folder / _CONFIG
    text = _object(file, values, "text_config") if kind == "llava" else values
    if text.get("model_type", "llama") != "llama":
        raise ConfigError(
            f"evaluate {folder}: its language model is of type {text['model_type']}; only llama "
            "can be asked"
        )
    shape = {key: _count(file, text, key, default) for key, default in _LLAMA.items()}
    heads = shape["num_attention_heads"]
    if text.get("head_dim") not in (None, shape["hidden_size"] // heads):
        raise ConfigError(
            f"evaluate {folder}: head_dim={text['head_dim']} is not hidden_size / "
            "num_attention_heads; such a model cannot be asked"
        )
    return LanguageModelSpec(
        name=NAME,
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_layers=shape["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=_count(file, text, "num_key_value_heads", heads),
        vocab_size=shape["vocab_size"],
        max_position_embeddings=shape["max_position_embeddings"],
        template="",
        weights="",
        tokenizer="",
        tie_word_embeddings=bool(
            values.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        ),
    )


def _tower(folder: Path, values: Mapping[str, Any], identity: str) -> VisionTowerSpec | None:
    if values.get("model_type") != "llava":
        return None
    file = folder / _CONFIG
    given = values.get("vision_config") is not None
    vision = _object(file, values, "vision_config") if given else _LLAVA_TOWER
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise ConfigError(
            f"evaluate {folder}: its vision tower is of type {vision['model_type']}; only CLIP's "
            "can be asked"
        )
    shape = {key: _count(file, vision, key, default) for key, default in _CLIP.items()}
    layer = values.get("vision_feature_layer", -2)
    strategy = values.get("vision_feature_select_strategy", "default")
    if not isinstance(layer, int) or strategy != "default":
        raise ConfigError(
            f"evaluate {folder}: vision_feature_layer={layer} and "
            f"vision_feature_select_strategy={strategy}; only one layer without its class token "
            "(default) can be asked"
        )
    return VisionTowerSpec(
        name=f"clip_{shape['image_size']}px",
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_layers=shape["num_hidden_layers"],
        num_heads=shape["num_attention_heads"],
        patch_size=shape["patch_size"],
        image_size=shape["image_size"],
        # hidden_states has the embeddings in front of the layers.
        feature_layer=layer if layer < 0 else layer - shape["num_hidden_layers"] - 1,
        weights=identity,
    )


def _stored_dtype(values: Mapping[str, Any]) -> str | None:
    """Newer transformers say dtype, older ones torch_dtype; of the whole or of its parts alone."""
    for part in (values, values.get("text_config")):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part, Mapping) and isinstance(part.get(key), str):
                return str(part[key]).removeprefix("torch.")
    return None


def _object(file: Path, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object below a key of a file.

    Raises:
        ConfigError: it is none.
    """
    value = values.get(key)
    if not isinstance(value, Mapping):
        raise _unfit(file, key, value, "must be an object")
    return value


N = TypeVar("N", int, int | None)


def _count(file: Path, values: Mapping[str, Any], key: str, default: N) -> int | N:
    """A number of things; default where nothing is said.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unfit(file, key, value, "must be a whole number above 0")
    return value


def _unfit(file: Path, key: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"evaluate {file.parent}: {key}={value!r} in its {file.name}: {rule}")


def _check_pictures(folders: Sequence[Path], tower: VisionTowerSpec, *, blind: bool) -> None:
    """Refuse a processor that would show other pictures than data/images.py does.

    folders: the checkpoint's, and that of the model below adapters; the first that says how
        pictures are prepared counts.

    Raises:
        ConfigError: naming all that differs; what is not said is not compared.
    """
    folder, said = next(
        ((f, said) for f in folders if (said := _image_processor(f))), (folders[0], {})
    )
    side = tower.image_size
    wanted: dict[str, tuple[object, ...]] = {
        "crop_size": ({"height": side, "width": side}, side),
        "size": ({"shortest_edge": side}, side),
        "do_resize": (True,),
        "do_center_crop": (True,),
        "do_pad": (False, None),
        "resample": (3,),
    }
    if not blind:
        wanted |= {"image_mean": (_MEAN,), "image_std": (_STD,)}
    wrong = [
        f"{k}={said[k]}" for k, allowed in wanted.items() if k in said and said[k] not in allowed
    ]
    if wrong:
        raise ConfigError(
            f"evaluate {folder}: its pictures are prepared otherwise than CLIP's are here "
            f"({', '.join(wrong)}): shortest side to {side}, bicubic, middle cut out; it would be "
            "shown other pictures than it was trained on"
        )


def _image_processor(folder: Path) -> Mapping[str, Any]:
    """How pictures are prepared; empty where the folder does not say."""
    whole = _json(folder / "processor_config.json") or {}
    if whole.get("image_processor"):
        return _object(folder / "processor_config.json", whole, "image_processor")
    return _json(folder / "preprocessor_config.json") or {}


# ---------------------------------------------------------------- template


def _template(folder: Path, tokenizer: Path, facts: Mapping[str, Any], given: str | None) -> str:
    choices = ", ".join(TEMPLATES)
    if given is not None:
        if given not in TEMPLATES:
            raise ConfigError(f"template={given}: choose one of {choices}")
        return given
    if facts.get("template") in TEMPLATES:
        return str(facts["template"])
    chat = _chat_template(folder) or _chat_template(tokenizer) or ""
    # llava-hf's models 1.5 were trained as vicuna_v1; their chat template leaves out its first
    # sentences.
    if "USER: " in chat and "ASSISTANT:" in chat and "<image>" in chat:
        return "vicuna_v1"
    raise ConfigError(
        f"evaluate {folder}: does not say how it is spoken to; choose template= one of {choices}"
    )


def _chat_template(folder: Path) -> str | None:
    with_own_file = folder / "chat_template.jinja"
    if with_own_file.is_file():
        return with_own_file.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = (_json(folder / name) or {}).get("chat_template")
        if isinstance(found, str):
            return found
    return None


# ---------------------------------------------------------------- identity


Tell = Callable[[str], None]
LONG_BYTES = 5e9
"""To hash so much takes seconds, of which somebody should hear."""


def declared(folder: Path, cache: Path, tell: Tell = lambda _: None) -> str:
    """Identity of what is read of a folder: its commit in the hub's cache, or its bytes."""
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    if cached and folder.is_relative_to(cache_folder()):
        repository = folder.parents[1].name.removeprefix("models--").replace("--", "/", 1)
        return str(HubId(repository=repository, revision=folder.name))
    return f"files:{files_digest(folder, cache, tell)}"


def check_unchanged(identity: str, folder: Path, cache: Path) -> None:
    """Refuse a folder that is not what was planned any more.

    Raises:
        StageError: its bytes are others.
    """
    if identity.startswith("files:") and declared(folder, cache) != identity:
        raise StageError(
            f"{folder}: is not what was planned ({identity[:18]}...); type the line again to "
            "evaluate what is there now"
        )


def files_digest(folder: Path, cache: Path, tell: Tell = lambda _: None) -> str:
    """Hash over names and bytes of the files that make a model.

    A file that is as long and as old as when it was hashed last is not read again; that is kept in
    the cache, which may be deleted.
    """
    known_file = cache / "folders" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"
    try:
        known = read_json(known_file).get("files", {})
    except (FileNotFoundError, StoreError):
        known = {}
    files: dict[str, dict[str, Any]] = {}
    for path in model_files(folder):
        status = path.stat()
        files[path.name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    new = [name for name, seen in files.items() if not seen.items() <= known.get(name, {}).items()]
    num_bytes = sum(files[name]["size"] for name in new)
    if num_bytes > LONG_BYTES:
        tell(f"{folder}: {num_bytes / 1e9:,.0f} GB are hashed once, for what the checkpoint is")
    for name, seen in files.items():
        seen["sha256"] = sha256_of(folder / name) if name in new else known[name]["sha256"]
    if files != known:
        known_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(known_file, {"folder": str(folder), "files": files})
    hashes = {name: file["sha256"] for name, file in files.items()}
    return hashlib.sha256(canonical_json(hashes).encode()).hexdigest()


_KINDS = (".json", ".jinja", ".model", ".safetensors")
_OTHERS = ("merges.txt", "adapter_model.bin")
_NOT_READ = (FACTS, "trainer_state.json")


def model_files(folder: Path) -> list[Path]:
    """The files of a folder that are read to ask its model, in order of their names.

    Of weights in both forms only the safetensors are.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in _NOT_READ and not path.name.startswith(".")
    ]
    has_safetensors = any(path.match("model*.safetensors*") for path in found)
    return [
        path
        for path in found
        if path.suffix in _KINDS
        or path.name in _OTHERS
        or (path.match("pytorch_model*.bin") and not has_safetensors)
    ]
