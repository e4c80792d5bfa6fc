"""The device at hand and the number formats it is quick in."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from dlkit.errors import UsageError
from dlkit.specs import ImageSpec, Spec

MANY_MAPS, LARGE_MAP = 32, 64 * 64  # maps, and pixels of each, beyond which a convolution trains quicker in NCHW


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """auto → CUDA, then MPS, then CPU; a device that is named must be there.

    Raises:
        UsageError: no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name!r} is no device. Use auto, cpu, cuda, cuda:N or mps.") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in count or (device.index or 0) >= count[device.type]:
        here = ", ".join(f"{kind} ({number})" for kind, number in count.items() if number)
        raise UsageError(f"--device {name} is not on this machine. It has: {here}.")
    return device


def describe(device: torch.device) -> str:
    """The device in words: "cuda (NVIDIA H200)", "cpu (2 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''})"
    return str(device)


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The format that autocast computes in, or None for float32 throughout.

    auto is bf16 where the device computes it natively: on a CPU only with AMX or AVX-512 BF16, since elsewhere it is
    emulated and slower than float32.
    """
    if amp == "off":
        return None
    if amp == "auto":
        return torch.bfloat16 if _bf16_helps(device) else (torch.float16 if device.type == "cuda" else None)
    if amp == "fp16" and device.type == "cpu":
        raise UsageError("--amp fp16 needs a GPU; on a CPU use --amp bf16 or auto.")
    return torch.float16 if amp == "fp16" else torch.bfloat16


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """The block in which operations choose their format."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def wants_channels_last(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> bool:
    """Whether NHWC memory is quicker: for convolutions on a CPU (oneDNN), and on CUDA with tensor cores."""
    convolutions = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return convolutions and (device.type == "cpu" or (device.type == "cuda" and dtype is not None))


def trains_channels_last(model: nn.Module, spec: Spec, device: torch.device, dtype: torch.dtype | None) -> bool:
    """Whether NHWC memory is quicker to train in, too.

    Not on a CPU where large maps are convolved: oneDNN takes up to four times as long for the gradient of such weights.
    """
    large = device.type == "cpu" and isinstance(spec, ImageSpec) and _convolves_large_maps(model, spec)
    return wants_channels_last(model, device, dtype) and not large


@torch.no_grad()
def _convolves_large_maps(model: nn.Module, spec: ImageSpec) -> bool:
    """Asked of one image that goes through the network."""
    found: list[bool] = []

    def look(convolution: nn.Conv2d, _: object, maps: torch.Tensor) -> None:
        found.append(convolution.in_channels >= MANY_MAPS and maps.shape[-2:].numel() > LARGE_MAP)

    hooks = [module.register_forward_hook(look) for module in model.modules() if isinstance(module, nn.Conv2d)]
    training = model.training
    try:
        if hooks:
            model.eval()(torch.zeros(1, spec.channels, spec.height, spec.width))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return any(found)


def lay_out(model: nn.Module, device: torch.device) -> None:
    """Put a network's weights, in place, into the memory format that is quicker for answering on the device."""
    if wants_channels_last(model, device, None):
        model.to(memory_format=torch.channels_last)


def seeder(device: torch.device) -> Callable[[int], object]:
    """What sets the random stream that dropout draws from on this device."""
    if device.type == "cpu":
        return torch.default_generator.manual_seed
    return torch.manual_seed


def compute_alike(device: torch.device) -> None:
    """Have CUDA give the same bits for the same step, where it has kernels that do: a resume must end like its run."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def use_threads(threads: int | None) -> int:
    """Compute on that many CPU threads; returns how many there are. They change the last bits of results."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def _bf16_helps(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    return "amx_bf16" in flags or "avx512_bf16" in flags
