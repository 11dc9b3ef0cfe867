"""Which device a process computes on, told from CUDA's answers of a machine with several GPUs."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from trainer.data.batches import prefetch
from trainer.runtime.device import base_dtype, choose_device, device_name

pytestmark = pytest.mark.unit


def test_a_gpu_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose_device() == torch.device("cuda", 3)


def test_without_a_gpu_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")


def test_batches_are_loaded_in_a_thread_that_uses_this_processs_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    current: dict[int, torch.device] = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.update({threading.get_ident(): device}))

    def load(_: int) -> tuple[int, torch.device | None]:
        return threading.get_ident(), current.get(threading.get_ident())

    for thread, device in prefetch(load, range(3), torch.device("cuda", 1)):
        assert thread != threading.get_ident()
        assert device == torch.device("cuda", 1)


def test_gpus_of_one_name_and_different_memory_are_different_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [40 * 2**30, 80 * 2**30]
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda device: SimpleNamespace(name="NVIDIA A100", total_memory=sizes[device.index]),
    )
    names = [device_name(torch.device("cuda", index)) for index in range(2)]
    assert len(set(names)) == 2
    assert all(name.startswith("NVIDIA A100, ") for name in names)
    assert device_name(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(
    ("capability", "has_bf16", "dtype"),
    [((8, 0), True, torch.bfloat16), ((7, 5), False, torch.float16), ((6, 1), False, torch.float32)],
    ids=["A100", "T4", "GTX 1080"],
)
def test_a_base_is_in_the_precision_that_the_gpu_multiplies_fastest(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has_bf16: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert base_dtype(torch.device("cuda", 0)) == dtype
    assert base_dtype(torch.device("cpu")) == torch.float32
