"""What the texts of files say about their clips: our own word for word, others' as far as it has a counterpart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.api.tasks.body import SubmitBody
from backend.core.record import body_of
from backend.services.foreign.settings import FoundSettings, Origin, read_settings
from tests.commands.test_record import REQUEST, record

#: ComfyUI's graph of Wan2.2 T2V A14B with two samplers, as it was run.
TWO_EXPERTS: dict[str, Any] = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"}},
    "2": {"class_type": "UNETLoader", "inputs": {"unet_name": "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"}},
    "3": {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["1", 0], "lora_name": "wan/style.safetensors", "strength_model": 0.8},
    },
    "4": {"class_type": "ModelSamplingSD3", "inputs": {"model": ["3", 0], "shift": 8.0}},
    "5": {"class_type": "PrimitiveString", "inputs": {"value": "a cat in the rain"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["5", 0], "clip": ["9", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurred", "clip": ["9", 0]}},
    "8": {"class_type": "EmptyHunyuanLatentVideo", "inputs": {"width": 832, "height": 480, "length": 81}},
    "11": {
        "class_type": "KSamplerAdvanced",
        "inputs": {
            **{"model": ["2", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["10", 0]},
            **{"noise_seed": 0, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "start_at_step": 10},
        },
    },
    "10": {
        "class_type": "KSamplerAdvanced",
        "inputs": {
            **{"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["8", 0]},
            **{"noise_seed": 1234, "steps": 20, "cfg": 3.5, "sampler_name": "euler", "start_at_step": 0},
        },
    },
    "12": {"class_type": "CreateVideo", "inputs": {"images": ["11", 0], "fps": 16.0}},
}
WANTED = {
    **{"prompt": "a cat in the rain", "negative_prompt": "blurred", "resolution": "832x480", "num_frames": 81},
    **{"steps": 20, "guidance_scale": 3.5, "guidance_scale_2": 3.0, "flow_shift": 8.0, "scheduler": "euler"},
    **{"seed": 1234, "fps": 16.0, "model_type": "T2V-A14B", "loras": [{"id": "style", "strength": 0.8}]},
}


def read(**texts: object) -> FoundSettings:
    plain = {name: text if isinstance(text, str) else json.dumps(text) for name, text in texts.items()}
    found = read_settings(plain)
    if found.body is not None:  # whatever a file says, the result can be sent
        SubmitBody.model_validate({name: value for name, value in found.body.items() if value is not None})
    return found


def test_our_own_record_comes_back_word_for_word() -> None:
    found = read(wan22=record())
    assert (found.origin, found.exact) == (Origin.WAN22, True)
    assert found.body == body_of(REQUEST)


def test_a_mock_and_an_enlarged_clip_are_called_so() -> None:
    mock = read(wan22=record(result={"mock": "no model is here"}))
    assert not mock.exact
    assert any("mock" in note for note in mock.notes)
    assert any("enlarged" in note for note in read(wan22=record(enlarged={"factor": 2})).notes)


@pytest.mark.parametrize(
    "changes",
    [{"format": 99}, {"request": {"prompt": "x"}}, {"request": REQUEST.to_json() | {"from_the_future": 1}}],
)
def test_settings_of_the_future_are_named_and_not_used(changes: dict[str, Any]) -> None:
    found = read(wan22=record() | changes)
    assert (found.origin, found.body) == (Origin.WAN22, None)
    assert any("cannot read the settings" in note for note in found.notes)


@pytest.mark.parametrize(
    "text",
    [
        '{"product": "wan22", "__proto__": {"admin": true}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"product": "wan22", "request": {"seed": 1e999}}',
        '{"product": ["wan22"], "request": 7}',
        "{" + "\x00" * 100,
    ],
)
def test_hostile_json_says_nothing(text: str) -> None:
    assert read(wan22=text).body is None


def test_a_graph_of_comfyui_becomes_a_request() -> None:
    found = read(prompt=TWO_EXPERTS)
    assert found.origin is Origin.COMFYUI
    assert found.body == WANTED
    assert not found.exact
    assert any("noise" in note for note in found.notes)


def test_the_comment_that_video_helper_suite_writes_is_understood() -> None:
    assert read(comment={"prompt": json.dumps(TWO_EXPERTS), "workflow": {}}).body == WANTED


def test_a_graph_as_it_was_drawn_is_read() -> None:
    nodes = [
        {"id": 1, "type": "UNETLoader", "widgets_values": ["wan2.2_ti2v_5B_fp16.safetensors", "default"]},
        {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["a dog"], "inputs": [{"name": "clip", "link": 9}]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["ugly"]},
        {"id": 4, "type": "Wan22ImageToVideoLatent", "widgets_values": [1280, 704, 121, 1]},
        {
            "id": 5,
            "type": "KSampler",
            "widgets_values": [77, "randomize", 20, 5.0, "uni_pc", "simple", 1.0],
            "inputs": [{"name": "positive", "link": 1}, {"name": "negative", "link": 2}],
        },
        {"id": 6, "type": "LoadImage", "widgets_values": ["start.png"]},
    ]
    found = read(workflow={"nodes": nodes, "links": [[1, 2, 0, 5, 1, "COND"], [2, 3, 0, 5, 2, "COND"]]})
    assert found.body is not None
    assert found.body | {"fps": None} == {
        **{"prompt": "a dog", "negative_prompt": "ugly", "resolution": "1280x704", "num_frames": 121, "seed": 77},
        **{"steps": 20, "guidance_scale": 5.0, "scheduler": "unipc", "model_type": "TI2V-5B", "fps": None},
    }
    assert any("picture" in note for note in found.notes)


def test_what_has_no_counterpart_is_named() -> None:
    graph = json.loads(json.dumps(TWO_EXPERTS))
    graph["10"]["inputs"] |= {"sampler_name": "res_multistep", "noise_seed": 2**63, "steps": ["404", 0]}
    graph["1"]["inputs"]["unet_name"] = "my-2v-mix.safetensors"
    found = read(prompt=graph)
    assert found.body is not None
    assert not {"scheduler", "seed", "steps"} & found.body.keys()
    assert found.body["model_type"] == "auto"
    assert {"scheduler", "seed", "model"} <= {note.split()[0] for note in found.notes}


@pytest.mark.parametrize(
    "graph",
    [
        {
            "nodes": [None, 7, {"type": "KSampler", "widgets_values": 7, "inputs": [7]}],
            "links": [7, [1], [[], 2, 3, 4]],
        },
        {"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "seed": ["1", 0], "steps": {}}}},
        {"1": {"class_type": "KSampler", "inputs": []}, "2": {"class_type": 7}, "3": []},
        {str(number): {"class_type": "X", "inputs": {"a": [str(number + 1), 0]}} for number in range(5000)},
    ],
)
def test_a_graph_of_nonsense_says_nothing(graph: dict[str, Any]) -> None:
    assert (read(prompt=graph).body or {"prompt": ""})["prompt"] == ""


def test_the_settings_of_wangp_become_a_request() -> None:
    settings = {
        **{"type": "WanGP v9 by DeepBeepMeep", "prompt": "a fox", "negative_prompt": "", "resolution": "832x480"},
        **{"video_length": 83, "num_inference_steps": 30, "seed": 5, "guidance_scale": 4, "guidance2_scale": 3},
        **{"flow_shift": 12, "sample_solver": "unipc", "model_type": "t2v_2_2", "activated_loras": ["fox.safetensors"]},
        **{"loras_multipliers": "0.5;1"},
    }
    found = read(comment=settings)
    assert found.origin is Origin.WANGP
    assert found.body == {
        **{"prompt": "a fox", "resolution": "832x480", "num_frames": 81, "steps": 30, "seed": 5, "guidance_scale": 4.0},
        **{"guidance_scale_2": 3.0, "flow_shift": 12.0, "scheduler": "unipc", "model_type": "T2V-A14B"},
        **{"loras": [{"id": "fox", "strength": 0.5}]},
    }
    assert any("83 frames became 81" in note for note in found.notes)


def test_parameters_in_a_text_become_a_request() -> None:
    text = "a hill, green\nNegative prompt: fog\nSteps: 20, Sampler: Euler, CFG scale: 6.5, Seed: 9, Size: 512x320"
    found = read(parameters=text)
    assert found.origin is Origin.PARAMETERS
    assert found.body == {
        **{"prompt": "a hill, green", "negative_prompt": "fog", "steps": 20, "scheduler": "euler", "seed": 9},
        **{"guidance_scale": 6.5, "resolution": "512x320", "model_type": "auto"},
    }


def test_other_texts_are_named() -> None:
    found = read(title="holiday", encoder="Lavf62")
    assert (found.origin, found.body) == (Origin.NONE, None)
    assert found.notes == ['the file has texts that say nothing about settings that are known here: "title"']
    assert read(encoder="Lavf62").notes == []
