"""What other programs have is found, judged and planned: the Hugging Face cache, ComfyUI's folders, Wan2GP's."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from huggingface_hub import hf_hub_download

from backend.core.catalogue.table import MODELS
from backend.core.errors.requests import InvalidRequest, UnknownModel
from backend.core.paths import Home
from backend.models.adoption.assembly import assemble
from backend.models.adoption.plans import Plan, parse_choices, plans
from backend.models.adoption.structure import Kind, Use
from backend.models.adoption.survey import Survey, scan_folders, usual_roots
from backend.models.download.downloader import ModelDownloader
from backend.models.download.local_files import LocalFiles
from backend.models.folder.integrity import FileState, check_full
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager, Presence
from backend.models.folder.manifest import read_manifest
from tests.support.hub import COMMIT, REPOSITORY, StandIn
from tests.support.weight_files import a14b, sparse, sparse_gguf, text_encoder, vae

T2V = MODELS["T2V-A14B"]
Make = Callable[..., ModelDownloader]


def _plan(survey: Survey, home: Home, model: str = "T2V-A14B", choices: dict[Use, Path] | None = None) -> Plan:
    made = plans(survey, ModelManager(home, has_gpu=False), choices or {})
    return next(plan for plan in made if plan.spec.id == model)


@pytest.fixture
def cache(tmp_path: Path, hub: StandIn, published: dict[str, bytes]) -> Path:
    """A cache that huggingface_hub itself filled from the stand-in, with everything that the repository has."""
    for name in published:
        where = {"cache_dir": tmp_path / "hub", "endpoint": hub.endpoint, "revision": COMMIT}
        hf_hub_download(REPOSITORY, name, token=False, **where)  # type: ignore[arg-type]
    hub.requests.clear()
    return tmp_path / "hub"


def test_a_published_folder_in_the_cache_is_adopted_whole(
    cache: Path, home: Home, hub: StandIn, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    plan = _plan(scan_folders([cache]), home)
    assert (plan.lacking, plan.presence, plan.worthwhile) == ((), Presence.MISSING, True)
    assert plan.size_bytes == sum(map(len, needed.values()))
    made = assemble(home, T2V, plan.parts)
    assert made.complete
    manifest = read_manifest(made.folder)
    assert manifest is not None
    assert (manifest.repository, manifest.commit, manifest.adopted) == (REPOSITORY, COMMIT, [])
    assert set(manifest.files) == set(needed)
    assert all(finding.state is FileState.OK for finding in check_full(made.folder, manifest))
    shutil.rmtree(cache)
    assert ModelManager(home, has_gpu=False).state(T2V).available
    assert make_downloader().download(T2V) == made.folder
    assert hub.requests == []


def test_the_downloader_completes_a_cache_that_was_interrupted(
    cache: Path, home: Home, hub: StandIn, make_downloader: Make
) -> None:
    (snapshot,) = cache.glob("*/snapshots/*")
    for path in (snapshot / "tokenizer").iterdir():
        path.unlink()
    plan = _plan(scan_folders([cache]), home)
    assert (plan.lacking, plan.worthwhile) == (("tokenizer",), True)
    assert not assemble(home, T2V, plan.parts).complete
    make_downloader(local=LocalFiles(cache=cache.with_name("none"))).download(T2V)
    assert {name.partition("/")[0] for name in hub.fetched()} == {"tokenizer"}


def test_a_blob_that_rotted_is_not_adopted(cache: Path, home: Home) -> None:
    (snapshot,) = cache.glob("*/snapshots/*")
    blob = (snapshot / "vae" / "diffusion_pytorch_model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    made = assemble(home, T2V, _plan(scan_folders([cache]), home).parts)
    assert made.refused == ["vae/diffusion_pytorch_model.safetensors"]
    assert not made.complete


@pytest.fixture
def comfy(tmp_path: Path) -> Path:
    """ComfyUI's folders with files of full size and no numbers."""
    models = tmp_path / "user" / "ComfyUI" / "models"
    for noise in ("high", "low"):
        sparse(models / "diffusion_models" / f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors", a14b(), "F8_E4M3")
    sparse(models / "vae" / "wan_2.1_vae.safetensors", vae(16))
    sparse(models / "text_encoders" / "umt5_xxl_fp16.safetensors", text_encoder(), "F16")
    return models


def test_the_folders_of_comfyui_give_a_model_but_its_tokenizer(comfy: Path, home: Home, tmp_path: Path) -> None:
    roots = usual_roots(tmp_path / "user")
    assert {root.name for root in roots} == {"diffusion_models", "vae", "text_encoders"}
    plan = _plan(scan_folders(roots), home)
    assert plan.lacking == ("tokenizer",)
    assert plan.worthwhile
    assert {part.name for part in plan.parts.files} == {
        "transformer/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
        "transformer_2/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
        "vae/wan_2.1_vae.safetensors",
        "text_encoder/umt5_xxl_fp16.safetensors",
    }
    other = _plan(scan_folders(roots), home, "I2V-A14B")
    assert other.lacking == ("transformer", "transformer_2", "tokenizer")
    assert not other.worthwhile


def test_two_experts_of_one_precision_go_together(comfy: Path, home: Home) -> None:
    sparse(comfy / "diffusion_models" / "wan2.2_t2v_high_noise_14B_fp16.safetensors", a14b(), "F16")
    names = {part.name for part in _plan(scan_folders([comfy]), home).parts.files}
    assert "transformer/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors" in names
    sparse(comfy / "diffusion_models" / "wan2.2_t2v_low_noise_14B_fp16.safetensors", a14b(), "F16")
    names = {part.name for part in _plan(scan_folders([comfy]), home).parts.files}
    assert {"transformer/wan2.2_t2v_high_noise_14B_fp16.safetensors"} < names
    assert _plan(scan_folders([comfy]), home).rivals == {"transformer": 2, "transformer_2": 2}
    assert {"transformer_2/wan2.2_t2v_low_noise_14B_fp16.safetensors"} < names


def _experts(root: Path, *names: str) -> Path:
    """Write experts of T2V-A14B; the size of each differs by its position, as those of real files do."""
    for number, name in enumerate(names):
        sparse(root / f"{name}.safetensors", a14b(), "F8_E4M3", {"number": "x" * (number % 3)})
    return root


def _taken(root: Path, home: Home, choices: dict[Use, Path] | None = None) -> tuple[list[str], str]:
    plan = _plan(scan_folders([root]), home, choices=choices)
    return [part.source.relative_to(root).as_posix().removesuffix(".safetensors") for part in plan.parts.files], (
        plan.question
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # A fine-tune whose high expert is larger, beside the published model whose low expert is.
        (
            ("wan2.2_t2v_high_noise_14B_fp8", "boreal_t2v_low_fp8", "wan2.2_t2v_low_noise_14B_fp8", "boreal_t2v_H"),
            ["wan2.2_t2v_high_noise_14B_fp8", "wan2.2_t2v_low_noise_14B_fp8"],
        ),
        (
            ("Dawn_Wan22_T2V_HIGH_v2", "Dawn_Wan22_T2V_HIGH_v1", "Dawn_Wan22_T2V_LOW_v1"),
            ["Dawn_Wan22_T2V_HIGH_v1", "Dawn_Wan22_T2V_LOW_v1"],
        ),
        # Two spellings of the published model, and two roundings of another.
        (
            ("wan2.2_t2v_high_noise_14B_fp8_scaled", "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ"),
            ["wan2.2_t2v_high_noise_14B_fp8_scaled", "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ"],
        ),
        (("dusk_t2v_high_fp8_e5m2", "dusk_t2v_low_bf16"), ["dusk_t2v_high_fp8_e5m2", "dusk_t2v_low_bf16"]),
        # The folder names the expert or the model.
        (
            ("dusk/high_noise/wan22_t2v", "dawn/high_noise/wan22_t2v", "dawn/low_noise/wan22_t2v"),
            ["dawn/high_noise/wan22_t2v", "dawn/low_noise/wan22_t2v"],
        ),
        (
            ("a_t2v_wan22/high_noise", "b_t2v_wan22/high_noise", "b_t2v_wan22/low_noise"),
            ["b_t2v_wan22/high_noise", "b_t2v_wan22/low_noise"],
        ),
    ],
)
def test_experts_of_one_family_go_together(
    tmp_path: Path, home: Home, names: tuple[str, ...], expected: list[str]
) -> None:
    assert _taken(_experts(tmp_path / "root", *names), home) == (expected, "")


@pytest.mark.parametrize(
    "names",
    [
        ("dawn_t2v_wan22_high", "dusk_t2v_wan22_low"),
        ("Dawn_Wan22_T2V_HIGH_v2", "Dawn_Wan22_T2V_LOW_v1"),
        ("a/high_noise/wan22_t2v_dawn", "a/low_noise/wan22_t2v_dusk"),
    ],
)
def test_what_no_name_links_is_asked(tmp_path: Path, home: Home, names: tuple[str, str]) -> None:
    root = _experts(tmp_path / "root", *names)
    taken, question = _taken(root, home)
    assert taken == []
    assert "do not show which belong together" in question
    high, low = (Use("T2V-A14B", component) for component in ("transformer", "transformer_2"))
    paths = [root / f"{name}.safetensors" for name in names]
    assert _taken(root, home, {high: paths[0]})[0] == [names[0]], "the chosen one alone"
    assert _taken(root, home, dict(zip((high, low), paths, strict=True))) == (list(names), "")


def test_one_expert_of_another_model_is_not_completed_with_the_published_one(tmp_path: Path, home: Home) -> None:
    taken, question = _taken(_experts(tmp_path / "root", "dawn_t2v_wan22_high_fp8"), home)
    assert (taken, "other expert was not found" in question) == ([], True)
    published = "wan2.2_t2v_low_noise_14B_fp16"
    assert _taken(_experts(tmp_path / "there", published), home) == ([published], "")


def test_an_ambiguous_file_is_used_only_when_the_user_says_what_it_is(tmp_path: Path, home: Home) -> None:
    a, b = (sparse(tmp_path / "root" / f"{name}.safetensors", a14b()) for name in "ab")
    survey = scan_folders([tmp_path / "root"])
    assert "transformer" in _plan(survey, home).lacking
    choices = parse_choices([f"t2v/transformer={a}", f"T2V-A14B/transformer_2={b}"])
    plan = _plan(survey, home, choices=choices)
    assert [(part.source.name, part.name.partition("/")[0]) for part in plan.parts.files] == [
        ("a.safetensors", "transformer"),
        ("b.safetensors", "transformer_2"),
    ]
    for text in (f"TI2V-5B/transformer={a}", f"T2V-A14B/vae={a}", f"T2V-A14B/transformer={tmp_path}/x.safetensors"):
        with pytest.raises(InvalidRequest):
            plans(survey, ModelManager(home, has_gpu=False), parse_choices([text]))


def test_one_file_is_not_both_experts(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        parse_choices([f"t2v/transformer={tmp_path}/a", f"t2v/transformer_2={tmp_path}/a"])


def test_a_single_file_is_looked_at_and_chosen_under_any_of_its_names(tmp_path: Path, home: Home) -> None:
    path = sparse(tmp_path / "root" / "a.safetensors", a14b())
    (tmp_path / "other.safetensors").hardlink_to(path)
    choices = {Use("T2V-A14B", "transformer"): tmp_path / "other.safetensors"}
    plan = _plan(scan_folders([path]), home, choices=choices)
    assert [part.name for part in plan.parts.files] == ["transformer/a.safetensors"]


@pytest.mark.parametrize("text", ["T2V-A14B/transformer", "T2V-A14B=x", "TI2V-5B/transformer_2=x", "t2v/tokenizer=x"])
def test_choices_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_choices([text])
    with pytest.raises(UnknownModel):
        parse_choices(["Wan3/transformer=x"])


def test_shards_pickles_and_double_names_are_told_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    shapes = a14b(36)
    halves = [dict(list(shapes.items())[number::2]) for number in range(2)]
    weight_map: dict[str, str] = {}
    for number, half in enumerate(halves):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        sparse(root / "high_noise_model" / name, half)
        weight_map |= dict.fromkeys(half, name)
    index = root / "high_noise_model" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    path = sparse(root / "wan_2.1_vae.safetensors", vae(16))
    (root / "same.safetensors").hardlink_to(path)
    (root / "link.safetensors").symlink_to(path)
    (root / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    (root / "pytorch_model.bin").write_bytes(b"\x80\x04")
    survey = scan_folders([root, root / "high_noise_model"])
    kinds = sorted((found.kind.value, found.path.name) for found in survey.weights)
    assert [kind for kind, _ in kinds] == ["not supported", "transformer", "vae"]
    assert kinds[0] == (Kind.UNSUPPORTED.value, "Wan2.1_VAE.pth")


def test_text_encoders_with_names_of_llama_are_used(comfy: Path, home: Home) -> None:
    (comfy / "text_encoders" / "umt5_xxl_fp16.safetensors").unlink()
    name = "umt5-xxl-encoder-Q8_0.gguf"
    sparse_gguf(comfy / "text_encoders" / name, text_encoder("gguf"), gguf.GGMLQuantizationType.Q8_0, "t5encoder")
    plan = _plan(scan_folders([comfy]), home)
    assert plan.lacking == ("tokenizer",)
    assert f"text_encoder/{name}" in {part.name for part in plan.parts.files}


def test_a_tokenizer_is_known_by_its_words(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ckpts" / "umt5-xxl"
    folder.mkdir(parents=True)
    for name in ("tokenizer_config.json", "spiece.model", "unrelated.txt"):
        (folder / name).write_bytes(name.encode())
    assert scan_folders([tmp_path / "ckpts"]).tokenizer == ()
    words = (folder / "spiece.model").read_bytes()
    monkeypatch.setattr("backend.models.adoption.survey._UMT5_WORDS", (len(words), hashlib.sha256(words).hexdigest()))
    found = scan_folders([tmp_path / "ckpts"]).tokenizer
    assert {path.name for path in found} == {"tokenizer_config.json", "spiece.model"}
    assert "tokenizer" not in _plan(scan_folders([tmp_path / "ckpts"]), home).lacking


def test_a_model_that_is_here_is_not_adopted_again(cache: Path, home: Home) -> None:
    shutil.copytree(EMBEDDED_MODELS / "tiny-t2v-a14b", home.models / "T2V-A14B")
    plan = _plan(scan_folders([cache]), home)
    assert plan.presence is Presence.AVAILABLE
    assert not plan.worthwhile
