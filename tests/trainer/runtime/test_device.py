"""Which device a process computes on, told from CUDA's answers of a machine with several GPUs."""

from __future__ import annotations

import threading

import pytest
import torch

from trainer.data.batches import prefetch
from trainer.runtime.device import choose_device

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
