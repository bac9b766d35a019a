"""Reads ComfyUI's graphs: which node says what about a clip of Wan.

A graph comes as it was run (`prompt`: nodes by id, with their inputs by name) or as it was drawn (`workflow`: nodes
with lists of values). Follows links between nodes, a bounded number of them, and knows classes by what they carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_NODES: Final = 2000
_MAX_LINKS: Final = 16
#: Inputs of a node that makes pictures of noise, by which it is recognised.
_SAMPLES: Final = ("steps", "cfg", "seed", "noise_seed")
#: Which input of which class carries a value that stands on its own.
_CARRIERS: Final = (
    ("ModelSamplingSD3", "shift", "flow_shift"),
    ("WanVideoSampler", "shift", "flow_shift"),
    ("CreateVideo", "fps", "fps"),
    ("SaveWEBM", "fps", "fps"),
    ("VHS_VideoCombine", "frame_rate", "fps"),
    ("RandomNoise", "noise_seed", "seed"),
    ("KSamplerSelect", "sampler_name", "scheduler"),
    ("BasicScheduler", "steps", "steps"),
    ("CFGGuider", "cfg", "guidance_scale"),
    ("WanVideoTextEncode", "positive_prompt", "prompt"),
    ("WanVideoTextEncode", "negative_prompt", "negative_prompt"),
)
_MODEL_INPUTS: Final = ("unet_name", "ckpt_name", "model_name", "gguf_name")
_LORA_INPUTS: Final = ("lora_name", "lora")
#: Order of the values of a node as it was drawn, by class: only those of which one is needed.
_DRAWN: Final[Mapping[str, tuple[str, ...]]] = {
    "CLIPTextEncode": ("text",),
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", ""),
    ),
    "EmptyHunyuanLatentVideo": ("width", "height", "length"),
    "WanImageToVideo": ("width", "height", "length"),
    "WanFirstLastFrameToVideo": ("width", "height", "length"),
    "Wan22ImageToVideoLatent": ("width", "height", "length"),
    "ModelSamplingSD3": ("shift",),
    "UNETLoader": ("unet_name",),
    "UnetLoaderGGUF": ("unet_name",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "CreateVideo": ("fps",),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
}


@dataclass(slots=True)
class ReadGraph:
    """What a graph says, by the names of our request."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_graph(graph: dict[str, Any]) -> ReadGraph | None:
    """Return what a graph says about its clip; None for one that is none, or makes nothing."""
    nodes = _as_run(graph) or _as_drawn(graph)
    samplers = [one for one in nodes.values() if "positive" in one.inputs and any(i in one.inputs for i in _SAMPLES)]
    reading = _Reading(nodes)
    found = ReadGraph()
    for name, value in reading.carried():
        found.values.setdefault(name, value)
    if samplers:
        reading.sampled(sorted(samplers, key=lambda one: _start(reading.value(one, "start_at_step"))), found)
    for guider in (one for one in nodes.values() if one.kind in ("CFGGuider", "BasicGuider")):
        reading.prompts(guider, found)
    return found if found.values else None


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    inputs: Mapping[str, Any]


def _as_run(graph: dict[str, Any]) -> dict[str, _Node]:
    nodes = {}
    for key, value in list(graph.items())[:_MAX_NODES]:
        if isinstance(value, dict) and isinstance(value.get("class_type"), str):
            inputs = value.get("inputs")
            nodes[key] = _Node(value["class_type"], inputs if isinstance(inputs, dict) else {})
    return nodes


def _as_drawn(graph: dict[str, Any]) -> dict[str, _Node]:
    drawn, links = graph.get("nodes"), graph.get("links")
    if not isinstance(drawn, list):
        return {}
    ends = {
        one[0]: [str(one[1]), one[2]]
        for one in (links if isinstance(links, list) else [])[: 4 * _MAX_NODES]
        if isinstance(one, list) and len(one) >= 4 and isinstance(one[0], int)
    }
    nodes = {}
    for one in drawn[:_MAX_NODES]:
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or one.get("mode") in (2, 4):
            continue  # 2 and 4: switched off
        values = one.get("widgets_values")
        names = _DRAWN.get(one["type"], ())
        inputs: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
        if isinstance(values, list):
            inputs = {name: value for name, value in zip(names, values, strict=False) if name}
        slots = one.get("inputs")
        for slot in slots if isinstance(slots, list) else ():
            if isinstance(slot, dict) and isinstance(slot.get("link"), int) and slot["link"] in ends:
                inputs[str(slot.get("name"))] = ends[slot["link"]]
        nodes[str(one.get("id"))] = _Node(one["type"], inputs)
    return nodes


class _Reading:
    def __init__(self, nodes: Mapping[str, _Node]) -> None:
        self._nodes = nodes

    def carried(self) -> Iterator[tuple[str, Any]]:
        """Yield the values that one node carries by itself."""
        models: list[str] = []
        loras: list[tuple[str, Any]] = []
        for node in self._nodes.values():
            for kind, source, name in _CARRIERS:
                if node.kind == kind and (value := self.value(node, source)) is not None:
                    yield name, value
            length = self.value(node, "length") or self.value(node, "num_frames")
            width, height = self.value(node, "width"), self.value(node, "height")
            if length and width and height:
                yield "resolution", f"{width}x{height}"
                yield "num_frames", length
            models += [str(name) for source in _MODEL_INPUTS if (name := self.value(node, source))]
            if node.kind == "WanVideoModelLoader" and (name := self.value(node, "model")):
                models.append(str(name))
            for source in _LORA_INPUTS:
                if isinstance(name := self.value(node, source), str) and "lora" in node.kind.lower():
                    loras.append((name, self.value(node, "strength_model") or self.value(node, "strength")))
        named = [one for one in models if "wan" in one.lower() or "2v" in one.lower()]
        if named:
            yield "model_type", named[0]
        if loras:
            yield "loras", list(dict.fromkeys(loras))

    def sampled(self, samplers: list[_Node], found: ReadGraph) -> None:
        """Read the nodes that take the steps: of two, the first has the high-noise expert."""
        first = samplers[0]
        self.prompts(first, found)
        for source, name in (("steps", "steps"), ("cfg", "guidance_scale"), ("sampler_name", "scheduler")):
            if (value := self.value(first, source)) is not None:
                found.values[name] = value
        if first.kind == "WanVideoSampler" and (value := self.value(first, "scheduler")) is not None:
            found.values["scheduler"] = value
        seed = self.value(first, "seed")
        seed = self.value(first, "noise_seed") if seed is None else seed
        if seed is not None:
            found.values["seed"] = seed
        if len(samplers) > 1 and (value := self.value(samplers[1], "cfg")) is not None:
            found.values["guidance_scale_2"] = value
        if len(samplers) > 2:
            found.notes.append(f"the graph samples {len(samplers)} times; the first two are read")
        if any(one.kind == "LoadImage" for one in self._nodes.values()):
            found.notes.append("the graph has a picture, which is not in the file")

    def prompts(self, node: _Node, found: ReadGraph) -> None:
        """Read the texts that lead to a node."""
        for role, name in (("positive", "prompt"), ("negative", "negative_prompt"), ("conditioning", "prompt")):
            if role in node.inputs and (text := self._text(node.inputs[role], role, _MAX_LINKS)):
                found.values.setdefault(name, text)

    def value(self, node: _Node, name: str) -> Any:
        """Return an input of a node that is a plain value, also where it comes from another node."""
        value = node.inputs.get(name)
        for _ in range(_MAX_LINKS):
            source = self._linked(value)
            if source is None:
                break
            value = next(
                (source.inputs[one] for one in ("value", "text", "string", "int") if one in source.inputs), None
            )
        return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None

    def _text(self, link: Any, role: str, left: int) -> str | None:
        node = self._linked(link)
        if node is None or not left:
            return None
        text = self.value(node, "text")
        if isinstance(text, str):
            return text
        for name in (role, "conditioning", "conditioning_1", "positive"):
            if name in node.inputs and (found := self._text(node.inputs[name], role, left - 1)):
                return found
        return None

    def _linked(self, value: Any) -> _Node | None:
        return self._nodes.get(str(value[0])) if isinstance(value, list) and len(value) == 2 else None


def _start(step: Any) -> float:
    return float(step) if isinstance(step, int | float) else 0.0
