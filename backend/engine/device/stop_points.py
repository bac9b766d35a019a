"""Lets a run be stopped between any two layers of any model, not only between steps.

A layer takes milliseconds to seconds; a step, the encoding of an image or of a long prompt may take minutes. What stops
a run is an exception of the check, so everything on the way must leave its objects usable or unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

_check: Callable[[], None] | None = None


@contextmanager
def stop_points(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every layer while the block runs, and at each `stop_point`; what it raises ends the run."""
    global _check

    def before_layer(_layer: nn.Module, _arguments: Any) -> None:
        check()

    hook = register_module_forward_pre_hook(before_layer)
    outer, _check = _check, check
    try:
        yield
    finally:
        _check = outer
        hook.remove()


def stop_point() -> None:
    """Stop here if the run has to stop; for loops without layers, such as the loading of weights."""
    if _check is not None:
        _check()
