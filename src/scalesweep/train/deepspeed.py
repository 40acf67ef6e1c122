"""DeepSpeed, the engine of all training. Nothing else imports it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from glob import glob
from pathlib import Path
from typing import Any

# Any of them: a container that is given one GPU of a node may have only /dev/nvidia3.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if glob("/dev/nvidia[0-9]*") else "cpu")  # noqa: PTH207

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of its own imports
    import deepspeed
    from deepspeed.utils import logger as deepspeed_logger

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalesweep.errors import StoreError
from scalesweep.models.loading import OnDevice, Placement
from scalesweep.rendezvous import rendezvous
from scalesweep.specs import Precision
from scalesweep.stages import RENDEZVOUS_VARIABLE
from scalesweep.train.pieces import MOMENTS, Piece, SavedPieces

deepspeed_logger.setLevel(logging.ERROR)


COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Ranks wait for each other while one still hashes its share of hundreds of GB, or writes it."""


def initialise_processes() -> None:
    """Join the other ranks, once per process.

    They are found by MASTER_ADDR and MASTER_PORT, or by a file where there may be several nodes.
    """
    if dist.is_initialized():
        return
    # DeepSpeed calls torch's collectives by their old names, several times a step.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)
    # Building this op needs a compiler on the node; a killed build leaves a lock for which every
    # later run waits for ever. Without it plain gloo or NCCL is used.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if RENDEZVOUS_VARIABLE in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = rendezvous(Path(os.environ[RENDEZVOUS_VARIABLE]), rank=rank, world_size=world_size)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
        )
    else:
        dist.init_process_group(backend)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def training_device() -> torch.device:
    """Where this rank computes."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@dataclass(frozen=True)
class Sharded:
    """Placement of loaded weights under ZeRO-3: rank 0 reads, every rank keeps its part.

    One whole weight is on each rank at a time, never the model.
    """

    precision: Precision

    @property
    def device(self) -> torch.device:
        return training_device()

    def prepare(self, model: nn.Module) -> None:
        pass

    def put(
        self, module: nn.Module, name: str, read: Callable[[], Tensor], dtype: torch.dtype
    ) -> None:
        value = torch.empty(module.get_parameter(name).shape, dtype=dtype, device=self.device)
        if dist.get_rank() == 0:
            value.copy_(read())
        alone = nn.Module()
        alone.weight = nn.Parameter(value)
        with _quiet():  # broadcasts and splits
            deepspeed.zero.Init(
                module=alone,
                config_dict_or_path=engine_config(3, self.precision, 1.0, num_trained_params=1),
                dtype=dtype,
            )
        module._parameters[name] = alone.weight


def own_part(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of a parameter: its split under ZeRO-3 [n], else all of it."""
    part: Any = getattr(parameter, "ds_tensor", None)
    if part is None:
        return parameter
    # Splits are equally long; what the last ones have too many was never written.
    left = parameter.ds_numel - dist.get_rank() * part.numel()  # type: ignore[attr-defined]
    return part.view(-1)[: max(0, left)]  # type: ignore[no-any-return]


def weight_placement(zero_stage: int, precision: Precision) -> Placement:
    """Where this rank keeps the weights that it loads."""
    return Sharded(precision) if zero_stage == 3 else OnDevice(training_device())


def _join_sharded(task: nn.Module, precision: Precision) -> None:
    """Give what was added to a sharded model (projector, adapters) its device and dtype.

    Of a whole model DeepSpeed does that itself.
    """
    parameters = list(task.parameters())
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return
    for parameter in parameters:
        if not hasattr(parameter, "ds_id"):
            dtype = torch.bfloat16 if precision is Precision.bf16 else parameter.dtype
            parameter.data = parameter.data.to(training_device(), dtype)


class Engine:
    """One model in training under ZeRO; gradients of several backward passes, then one step."""

    def __init__(
        self,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        zero_stage: int,
        precision: Precision,
        max_grad_norm: float,
    ) -> None:
        if zero_stage == 3:
            _join_sharded(task, precision)
        # Under ZeRO-0 in bf16 DeepSpeed makes the optimizer's state by a step without gradients: it
        # must change no weight, and not count.
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        with _quiet():
            self._engine, *_ = deepspeed.initialize(
                model=task,
                optimizer=optimizer,
                config=engine_config(
                    zero_stage,
                    precision,
                    max_grad_norm,
                    num_trained_params=sum(
                        getattr(p, "ds_numel", p.numel())
                        for group in optimizer.param_groups
                        for p in group["params"]
                    ),
                ),
            )
        _walk_once(task)
        self.zero_stage = zero_stage
        self.task = task
        self._states.clear()

    @property
    def device(self) -> torch.device:
        return self._engine.device  # type: ignore[no-any-return]

    def loss_sum(self, *inputs: Any) -> Tensor:
        """The task's sum of losses of one micro-batch."""
        return self._engine(*inputs)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add gradients; last: of this step, so they are reduced over ranks."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, lr: float) -> float:
        """Clip and step; returns the global gradient norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def pieces(self) -> list[Piece]:
        """What this rank writes into a checkpoint, as views: the next step changes them."""
        rank, world_size = dist.get_rank(), dist.get_world_size()
        found = []
        for place in self._places():
            if not self._is_sharded:  # all ranks hold the same: each writes an even share
                place = place.share(rank, world_size)
            if not place.length:
                continue
            state = self._states.get(place.master, {})
            moments = {name: place.view(state[name]) for name in MOMENTS if name in state}
            found.append(
                Piece(
                    name=place.name,
                    start=place.start,
                    numel=place.numel,
                    weight=place.view(place.master),
                    moments=moments,
                    steps=int(state["step"]) if state else 0,
                )
            )
        return found

    def load(self, saved: SavedPieces) -> None:
        """Go on from what pieces() gave, on any number of ranks and under any stage then.

        Raises:
            StoreError: it is of another model.
        """
        places = self._places()
        names = {name for name, p in self.task.named_parameters() if p.requires_grad}
        if names != saved.names:
            raise StoreError(
                f"{saved.folder}: holds other parameters than this model trains: "
                f"{', '.join(sorted(names ^ saved.names)[:3])}; delete the checkpoints of this "
                "stage to begin anew"
            )
        wrapper = self._engine.optimizer
        if self.zero_stage == 3:
            wrapper.checkpoint_event_prologue()  # every parameter is split
        with torch.no_grad():
            for place in places:
                self._restore(place, saved)
            self._round_weights()
        if self.zero_stage == 3:
            wrapper.checkpoint_event_epilogue()  # small ones are kept whole on every rank

    def _restore(self, place: _Place, saved: SavedPieces) -> None:
        where = {"start": place.start, "length": place.length, "numel": place.numel}
        place.view(place.master).copy_(saved.read("weight", place.name, **where))
        steps = saved.steps(place.name)
        if not steps:
            return
        state = self._states.setdefault(place.master, {})
        if not state:  # as AdamW makes it in its first step
            state["step"] = torch.zeros((), dtype=torch.float32, device=place.master.device)
            state.update({name: torch.zeros_like(place.master) for name in MOMENTS})
        if int(state["step"]) not in (0, steps):
            raise StoreError(
                f"{saved.folder}: {place.name} was stepped {steps} times and its neighbours "
                f"{int(state['step'])}; only ZeRO-0 can go on from there"
            )
        state["step"].fill_(float(steps))
        for name in MOMENTS:
            place.view(state[name]).copy_(saved.read(name, place.name, **where))

    @property
    def _is_sharded(self) -> bool:
        return self.zero_stage > 0

    @property
    def _states(self) -> dict[Tensor, dict[str, Tensor]]:
        """Of torch's optimizer below whatever DeepSpeed has wrapped around it."""
        wrapper = self._engine.optimizer
        return getattr(wrapper, "optimizer", wrapper).state  # type: ignore[no-any-return]

    def _places(self) -> list[_Place]:
        """Where what this rank steps lies in the optimizer's tensors."""
        wrapper = self._engine.optimizer
        trained: list[tuple[str, Any]] = [
            (name, p) for name, p in self.task.named_parameters() if p.requires_grad
        ]
        places = []
        if self.zero_stage == 3:
            for name, p in trained:
                group, offset, padded = wrapper.grad_position[wrapper.get_param_id(p)]
                start = dist.get_rank() * padded
                places.append(
                    _Place(
                        name=name,
                        start=start,
                        length=max(0, min(padded, p.ds_numel - start)),
                        numel=p.ds_numel,
                        master=wrapper.fp32_partitioned_groups_flat[group],
                        offset=offset,
                    )
                )
        elif self.zero_stage:
            for name, p in trained:
                if (mapping := p._hp_mapping) is None:
                    continue  # other ranks have all of it
                there, here = mapping.lp_fragment_address, mapping.hp_fragment_address
                places.append(
                    _Place(
                        name=name,
                        start=there.start,
                        length=there.numel,
                        numel=p.numel(),
                        master=wrapper.single_partition_of_fp32_groups[mapping.param_group_index],
                        offset=here.start,
                    )
                )
        else:
            masters = self._masters()
            for name, p in trained:
                places.append(
                    _Place(
                        name=name,
                        start=0,
                        length=p.numel(),
                        numel=p.numel(),
                        master=masters.get(p, p),
                        offset=0,
                    )
                )
        return places

    def _masters(self) -> dict[Tensor, Tensor]:
        """Under ZeRO-0: parameter -> its fp32 copy, where it is not fp32 itself."""
        wrapper = self._engine.optimizer
        if not hasattr(wrapper, "fp32_groups"):
            return {}
        pairs = zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True)
        return {p: copy for ps, copies in pairs for p, copy in zip(ps, copies, strict=True)}

    def _round_weights(self) -> None:
        """Give the model the optimizer's weights, as a step does at its end; all ranks call it."""
        wrapper = self._engine.optimizer
        if self.zero_stage == 3:
            for group in range(len(wrapper.fp16_groups)):
                wrapper._reassign_or_swap_out_partitioned_parameters(group)
        elif self.zero_stage:
            wrapper.update_lp_params()
        else:
            for parameter, master in self._masters().items():
                parameter.copy_(master)

    @contextmanager
    def gathered(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """Whole parameters on every rank, where ZeRO-3 has split them; all ranks call it."""
        with deepspeed.zero.GatheredParameters(parameters, enabled=self.zero_stage == 3):
            yield

    def destroy(self) -> None:
        self._engine.destroy()


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A piece of a parameter in a tensor that the optimizer steps."""

    name: str
    start: int
    """Of the piece, in the flattened parameter."""
    length: int
    numel: int
    """Of the whole parameter."""
    master: Tensor
    """fp32, the key of the optimizer's state."""
    offset: int
    """Of the piece, in the flattened master."""

    def view(self, tensor: Tensor) -> Tensor:
        """The piece in the master or in a moment of it: [length]"""
        return tensor.detach().view(-1).narrow(0, self.offset, self.length)

    def share(self, rank: int, world_size: int) -> _Place:
        """Of a piece that all ranks hold: this rank's part of it."""
        begin = self.length * rank // world_size
        end = self.length * (rank + 1) // world_size
        return replace(
            self, start=self.start + begin, offset=self.offset + begin, length=end - begin
        )


def _walk_once(module: nn.Module) -> None:
    """Remember a module's parameters, which stay the same objects from here on.

    DeepSpeed walks the whole tree of modules for them several times a step: 2 % of a miniature's.
    """
    found = list(module.named_parameters())

    def named_parameters(
        prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        if prefix or not recurse or not remove_duplicate:
            return nn.Module.named_parameters(module, prefix, recurse, remove_duplicate)
        return iter(found)

    module.named_parameters = named_parameters  # type: ignore[method-assign]


# DeepSpeed's own sizes of the buffers in which gradients and weights are collected, in elements.
LARGEST_BUCKET = 500_000_000


def engine_config(
    zero_stage: int, precision: Precision, max_grad_norm: float, *, num_trained_params: int
) -> dict[str, Any]:
    """DeepSpeed's settings. Accumulation is ours: its own must divide evenly and average.

    Buckets are no larger than what is trained: ZeRO-2 allocates one anew in every backward pass,
    and 2 GB of it took several times as long as a miniature's whole step.
    """
    bucket = max(1, min(LARGEST_BUCKET, num_trained_params))
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision is Precision.bf16},
        "zero_optimization": {
            "stage": zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "steps_per_print": 10**9,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without DeepSpeed's messages about what it was told."""
    level = deepspeed_logger.level
    deepspeed_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        deepspeed_logger.setLevel(level)
