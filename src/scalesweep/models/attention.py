"""Causal attention over packed sequences: one seam for every kernel.

Several sequences lie behind one another in one row; none may see another. Kernels, fastest first:

    flash_attn  the flash-attn package's varlen kernel, where it is installed
    varlen      FlashAttention as PyTorch carries it (torch.nn.attention.varlen)
    sdpa        torch's scaled_dot_product_attention, once per group of sequences of like length;
                runs everywhere: CPU, fp32, old GPUs

None of them makes a mask of T x T. transformers' own way (position ids that start again, mask made
of them) does, and leaks between sequences without a word when a mask or a cache is passed.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from scalesweep.errors import StageError

NAME = "scalesweep_packed"
"""The seam's name among transformers' attention implementations."""

MOST_PADDING = 0.2
"""Of a group of sequences in one call of sdpa; fewer, larger calls are faster than many small."""


class Kernel(enum.StrEnum):
    """What computes attention over packed sequences."""

    flash_attn = "flash_attn"
    varlen = "varlen"
    sdpa = "sdpa"


@dataclass(frozen=True, kw_only=True)
class PackedSequences:
    """Where sequences lie in a row of T tokens: one behind the other, without gaps.

    Made once per micro-batch; every layer uses the same index tensors.
    """

    lengths: tuple[int, ...]
    """Tokens of each sequence, none of them 0"""
    kernel: Kernel
    starts: Tensor = field(repr=False)
    """[n + 1] int32 on the model's device: where each begins, and T"""
    groups: tuple[tuple[Tensor, Tensor], ...] = field(repr=False)
    """For sdpa: places in the row [m, L] (a short sequence's last place repeated), and which of
    them are real [m, L] bool; sequences of like length together"""
    order: Tensor = field(repr=False)
    """[T]: for sdpa, where each place of the row stands among the groups' real places"""

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def position_ids(self) -> Tensor:
        """[1, T]: 0, 1, ... anew in every sequence."""
        steps = torch.arange(int(sum(self.lengths)), device=self.starts.device)
        lengths = torch.tensor(self.lengths, device=self.starts.device)
        return (steps - self.starts[:-1].long().repeat_interleave(lengths)).unsqueeze(0)


def packed_sequences(
    lengths: Sequence[int], *, device: torch.device, kernel: Kernel
) -> PackedSequences:
    """Index tensors of one row on a device."""
    starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    starts[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
    groups: list[tuple[Tensor, Tensor]] = []
    order = torch.zeros(0, dtype=torch.long)
    if kernel is Kernel.sdpa:
        for members in like_lengths(lengths):
            first = starts[members].long()[:, None]
            count = torch.tensor([lengths[i] for i in members])[:, None]
            along = torch.arange(int(count.max()))[None, :]
            groups.append((first + torch.minimum(along, count - 1), along < count))
        order = torch.argsort(torch.cat([places[real] for places, real in groups]))
    return PackedSequences(
        lengths=tuple(lengths),
        kernel=kernel,
        starts=starts.to(device),
        groups=tuple((places.to(device), real.to(device)) for places, real in groups),
        order=order.to(device),
    )


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of sequences in groups that lose at most MOST_PADDING when padded to the longest."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and lengths[number] >= (1 - MOST_PADDING) * lengths[groups[-1][0]]:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def best_kernel(device: torch.device | str, dtype: torch.dtype) -> Kernel:
    """The fastest kernel that runs on a device in a dtype."""
    half = dtype in (torch.bfloat16, torch.float16)
    if torch.device(device).type != "cuda" or not half or _capability(device) < (8, 0):
        return Kernel.sdpa
    if _flash_attn_kernel() is not None:
        return Kernel.flash_attn
    return Kernel.varlen if _varlen_kernel() is not None else Kernel.sdpa


def chosen_kernel(asked: str, device: torch.device | str, dtype: torch.dtype) -> Kernel:
    """The kernel of `kernels.attention`: "auto", or one by name.

    Raises:
        StageError: it does not run here.
    """
    if asked == "auto":
        return best_kernel(device, dtype)
    kernel = Kernel(asked)
    why = _missing(kernel, device, dtype)
    if why:
        raise StageError(f"kernels.attention={asked}: {why}; take kernels.attention=auto")
    return kernel


def _missing(kernel: Kernel, device: torch.device | str, dtype: torch.dtype) -> str:
    """Why a kernel does not run on a device in a dtype; empty where it does."""
    if kernel is Kernel.sdpa:
        return ""
    if torch.device(device).type != "cuda":
        return "needs a CUDA device"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"takes bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    if _capability(device) < (8, 0):
        return "needs a GPU of compute capability 8.0 or more"
    if kernel is Kernel.flash_attn and _flash_attn_kernel() is None:
        return "the package flash-attn is not installed, or is built for another torch"
    if kernel is Kernel.varlen and _varlen_kernel() is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    return ""


def _capability(device: torch.device | str) -> tuple[int, int]:
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


def use_packed_attention(model: nn.Module) -> None:
    """Let a language model's attention take packed sequences (and plain rows as before).

    model: any module that holds LLaMA's attention layers; the vision tower's are left alone.
    """
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    for module in model.modules():
        if type(module).__name__ in ("LlamaAttention", "LlamaModel"):
            module.config._attn_implementation_internal = NAME  # type: ignore[union-attr]


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask: sequences are kept apart by where they lie, rows by being rows.

    A mask that somebody passes is made as for sdpa.
    """
    if attention_mask is None:
        return None
    mask: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    packed: PackedSequences | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. Shapes: query [1, H, T, D], key and value [1, K, T, D];
    returns [1, T, H, D]."""
    if packed is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    if attention_mask is not None or dropout:
        raise StageError("packed sequences take neither an attention mask nor attention dropout")
    # [1, H, T, D] -> [T, H, D]
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    return _KERNELS[packed.kernel](q, k, v, packed, scaling).unsqueeze(0), None


@functools.cache
def _flash_attn_kernel() -> Callable[..., Any] | None:
    """Imported, not looked for: a build for another torch is found, and fails when it is used."""
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except (ImportError, OSError):
        return None
    kernel: Callable[..., Any] = flash_attn_varlen_func
    return kernel


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, packed: PackedSequences, scale: float) -> Tensor:
    kernel = _flash_attn_kernel()
    assert kernel is not None, "chosen_kernel looked"
    starts, longest = packed.starts, packed.longest
    out: Tensor = kernel(
        q.contiguous(), k.contiguous(), v.contiguous(), starts, starts, longest, longest,
        softmax_scale=scale, causal=True,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return out


@functools.cache
def _varlen_kernel() -> Callable[..., Any] | None:
    """torch's varlen_attn, causal, by whatever name its version gives the setting."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "scale" not in known:
        return None
    settings: dict[str, Any] = (
        {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    )
    if "enable_gqa" in known:
        return functools.partial(varlen_attn, **settings, enable_gqa=True)

    def with_repeated_heads(q: Tensor, k: Tensor, v: Tensor, *where: Any, scale: float) -> Any:
        k, v = _as_many_heads(q, k, v)
        return varlen_attn(q, k, v, *where, scale=scale, **settings)

    return with_repeated_heads


def _varlen(q: Tensor, k: Tensor, v: Tensor, packed: PackedSequences, scale: float) -> Tensor:
    kernel = _varlen_kernel()
    assert kernel is not None, "chosen_kernel looked"
    starts, longest = packed.starts, packed.longest
    out: Tensor = kernel(
        q.contiguous(), k.contiguous(), v.contiguous(), starts, starts, longest, longest,
        scale=scale,
    )  # fmt: skip
    return out


def _sdpa(q: Tensor, k: Tensor, v: Tensor, packed: PackedSequences, scale: float) -> Tensor:
    k, v = _as_many_heads(q, k, v)
    if len(packed.lengths) == 1:
        return _causal(q[None], k[None], v[None], scale).squeeze(0)
    parts = [
        _causal(q[places], k[places], v[places], scale)[real] for places, real in packed.groups
    ]
    return torch.cat(parts)[packed.order]


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention of m sequences of one length: all [m, L, H, D]."""
    # What stands behind a short sequence's end is seen by nothing real: causal.
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, scale=scale
    )
    return out.transpose(1, 2)


def _as_many_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Key and value [T, K, D] repeated to the query's heads (grouped-query attention)."""
    times = q.shape[1] // k.shape[1]
    if times == 1:
        return k, v
    return k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)


_KERNELS = {Kernel.flash_attn: _flash_attn, Kernel.varlen: _varlen, Kernel.sdpa: _sdpa}
