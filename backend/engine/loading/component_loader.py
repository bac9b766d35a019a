"""Loads one component of a model: builds its structure without weights, matches the files to it, fills it in.

Names, shapes and types are checked before any value is read: every parameter has its tensor or nothing is loaded.
Knows components, not whole models or their use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, GGUFQuantizationConfig, WanTransformer3DModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from backend.core.catalogue.table import ModelSpec
from backend.core.formats.compatibility import form_fault, shape_fault
from backend.engine.device.stop_points import stop_point
from backend.engine.loading.configurations import config_folder
from backend.engine.loading.original_names import name_tables
from backend.engine.loading.weight_files import ComponentFiles, OpenWeights, StoredTensor, damaged, refused


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter and the tensor that holds its values."""

    names: tuple[str, ...]  #: more than one where parameters are tied
    tensor: StoredTensor
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fitting:
    """A component's structure (on the meta device) and a tensor for each of its parameters."""

    component: str
    module: nn.Module
    parameters: tuple[Parameter, ...]
    packed: frozenset[str]  #: names of the matrices that stay quantised as in the GGUF file


def build_component(component: str, config: Mapping[str, Any]) -> nn.Module:
    """Build a component from its `config.json`, with parameters on the meta device: shapes without values.

    Raises:
        TypeError, ValueError, KeyError: the configuration is not one of this component.
    """
    if component == "text_encoder":
        with torch.device("meta"):
            module: nn.Module = UMT5EncoderModel(UMT5Config.from_dict(dict(config)))
    elif component == "image_encoder":
        with init_empty_weights(include_buffers=False):  # the position ids are computed, not loaded
            module = CLIPVisionModel(CLIPVisionConfig.from_dict(dict(config)))
    else:
        with init_empty_weights(include_buffers=False):  # the rotary tables are computed, not loaded
            module = (AutoencoderKLWan if component == "vae" else WanTransformer3DModel).from_config(dict(config))
    return module.eval()


def fit(
    spec: ModelSpec, component: str, module: nn.Module, files: ComponentFiles, config: Mapping[str, Any]
) -> Fitting:
    """Find the tensor of every parameter, whichever naming the files use; reads no values.

    Raises:
        ModelDamaged: a parameter has no tensor, or one of another shape; or a tensor matches no parameter, which is a
            sign of another model.
        ModelUnsupported: a parameter's tensor is in an unsupported form.
    """
    names_of: dict[int, list[str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
        shapes[name] = tuple(parameter.shape)
    tables = name_tables(component, shapes, config)
    table = max(tables, key=lambda table: sum(name in files.tensors for name in table.values()))
    fault = form_fault(files.tensors, {}, table.values())
    if fault is not None:
        raise refused(spec, component, fault)
    used: set[str] = set()
    parameters = []
    for names in names_of.values():
        stored = [table[name] for name in names if table[name] in files.tensors]
        if not stored:
            raise damaged(spec, f"the weights of {component} have no tensor {table[names[0]]}")
        used.update(stored)
        tensor = files.tensors[stored[0]]
        fault = shape_fault(f"{stored[0]} of {component}", tensor, shapes[names[0]])
        if fault is not None:
            raise damaged(spec, fault.reason)
        parameters.append(Parameter(tuple(names), tensor, shapes[names[0]]))
    left = sorted(files.tensors.keys() - used)
    strict = component.startswith("transformer") or (table is not tables[0] and component != "image_encoder")
    if left and strict:  # image encoder files may also hold position ids or the projection into text space
        raise damaged(spec, f"{len(left)} tensors of {component} have no place in it; the first one is {left[0][:120]}")
    return Fitting(component, module, tuple(parameters), _packed(module, parameters))


def fill(fitting: Fitting, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Read a component's weights straight to a device, in the precision in which it computes.

    Every parameter gets its own memory, so the files may change or disappear afterwards. What diffusers keeps in
    float32 stays in float32; quantised matrices stay quantised.
    """
    with OpenWeights() as weights:
        if fitting.packed:
            return _fill_packed(fitting, weights, config, dtype, device)
        for parameter in fitting.parameters:
            stop_point()
            precision = torch.float32 if _in_float32(fitting.module, parameter.names[0], dtype) else dtype
            value = torch.empty(parameter.shape, dtype=precision, device=device)
            weights.copy(parameter.tensor, value)
            filled = nn.Parameter(value, requires_grad=False)
            for name in parameter.names:
                path, _, leaf = name.rpartition(".")
                setattr(fitting.module.get_submodule(path), leaf, filled)
    return fitting.module.to(device)  # the buffers


def _fill_packed(
    fitting: Fitting, weights: OpenWeights, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """Have diffusers build the transformer around its quantised matrices."""
    state = {}
    for parameter in fitting.parameters:
        stop_point()
        name = parameter.names[0]
        if name in fitting.packed:
            state[name] = weights.packed(parameter.tensor)
        else:
            state[name] = weights.numbers(parameter.tensor).reshape(parameter.shape)
    with config_folder(config) as folder:
        module: nn.Module = WanTransformer3DModel.from_single_file(
            state,
            config=str(folder),
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            device=device,
            local_files_only=True,
        )
    return module.requires_grad_(False).to(device)


def _packed(module: nn.Module, parameters: list[Parameter]) -> frozenset[str]:
    """Return the parameters that can stay quantised: a transformer's linear weights that are not kept in float32."""
    if not isinstance(module, WanTransformer3DModel):
        return frozenset()
    names = (parameter.names[0] for parameter in parameters if parameter.tensor.packed)
    return frozenset(
        name
        for name in names
        if name.endswith(".weight")
        and isinstance(module.get_submodule(name.removesuffix(".weight")), nn.Linear)
        and not _in_float32(module, name, torch.bfloat16)
    )


def _in_float32(module: nn.Module, parameter: str, dtype: torch.dtype) -> bool:
    """Whether the libraries keep a parameter in float32 while the rest of its module has another precision.

    diffusers does so in every precision, transformers only where the narrow range of float16 would overflow.
    """
    kept: list[str] | None = getattr(module, "_keep_in_fp32_modules", None)
    applies = isinstance(module, WanTransformer3DModel) or dtype == torch.float16
    return applies and not set(parameter.split(".")).isdisjoint(kept or ())
