"""The LoRAs of a home: what is taken in and refused, how files become LoRAs, and what one means for a model."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import struct
import unicodedata
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.lookups import LoraExists, StateConflict
from backend.core.errors.requests import (
    BodyTooLarge,
    InvalidRequest,
    LoraIncompatible,
    LoraInvalid,
    LoraNotFound,
    LoraUnsupported,
)
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.requests.forms import LoraFileRef, OnLoraFailure
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import LoraFileReader, ModelShapes
from backend.models.lora.library import LoraLibrary
from backend.models.lora.upload import receive, safe_stem
from tests.support.lora_files import comfyui_file, diffusers_file, kohya_file, lightx2v_file, random_adapter, write_lora

TINY = MODELS["tiny-t2v-a14b"]
#: A small structure that is none of ours.
FOREIGN = WanShape(24, 48, 1, 16, 16, 32)


@pytest.fixture(scope="module")
def shape() -> WanShape:
    shape = ModelShapes(EMBEDDED_MODELS).of(TINY)
    assert shape is not None
    return shape


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def library(home: Home, tmp_path: Path) -> LoraLibrary:
    return LoraLibrary(home, embedded=tmp_path / "embedded")


@pytest.fixture
def content(shape: WanShape) -> bytes:
    tensors, metadata = kohya_file(random_adapter(shape))
    return save(tensors, metadata)


class _Touch:
    """Would leave a canary if it were ever unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (os.system, (f"touch {self.canary}",))


def test_an_upload_is_in_the_list_and_can_be_used(library: LoraLibrary, home: Home, content: bytes) -> None:
    lora = library.add(io.BytesIO(content), "My Style.safetensors")
    assert lora.id == "My-Style"
    assert [path.name for path in home.loras.glob("*.safetensors")] == ["My Style.safetensors"]
    assert [one.id for one in library.all()] == ["My-Style"]
    assert TINY.id in lora.models
    assert not {"T2V-A14B", "TI2V-5B"} & set(lora.models)
    use, notes = library.plan_use(TINY, "My-Style", strength=0.5)
    assert (use.id, use.strength, use.strength_2) == ("My-Style", 0.5, 0.5)
    assert [(file.name, file.expert) for file in use.files] == [("My Style.safetensors", "both")]
    assert "goes to both" in notes[0]
    assert library.open_file(use.files[0]).read_bytes() == content
    assert not list(home.loras.glob("*.part"))


def test_the_same_file_twice_is_one_lora_and_another_one_under_its_name_is_refused(
    library: LoraLibrary, content: bytes, shape: WanShape
) -> None:
    library.add(io.BytesIO(content), "a.safetensors")
    library.add(io.BytesIO(content), "a.safetensors")
    other = save(*kohya_file(random_adapter(shape, seed=9)))
    with pytest.raises(LoraExists):
        library.add(io.BytesIO(other), "a.safetensors")
    assert library.open_file(library.plan_use(TINY, "a")[0].files[0]).read_bytes() == content


def test_what_is_no_lora_is_refused_by_its_content_and_nothing_is_run(
    library: LoraLibrary, home: Home, content: bytes, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    evil = pickle.dumps(_Touch(canary))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", evil)
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    cases = {
        "pickle": evil,
        "zip": archive.getvalue(),
        "pickle behind a length": struct.pack("<Q", len(evil)) + evil,
        "empty": b"",
        "seven bytes": b"1234567",
        "web page": b"<!DOCTYPE html><html></html>" * 10,
        "huge header": struct.pack("<Q", 2**62) + content[8:],
        "cut off": content[:-1],
        "cut in the header": content[:200],
        "more behind it": content + b"x",
        "no tensors": struct.pack("<Q", 2) + b"{}",
        "header is a list": struct.pack("<Q", 2) + b"[]",
        "deep header": struct.pack("<Q", 100_000) + b"[" * 100_000,
        "no lora in it": struct.pack("<Q", len(header)) + header + b"\0\0\0\0",
        "repeated name": struct.pack("<Q", 2 * len(header)) + header[:-1] + b"," + header[1:] + b" " + b"\0" * 8,
    }
    for fields in (
        '{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":7}',
        '{"__metadata__":{"x":1}}',
        '{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}',
    ):
        cases[fields] = struct.pack("<Q", len(fields)) + fields.encode() + b"\0\0\0\0"
    for name, raw in cases.items():
        with pytest.raises(LoraInvalid):
            library.add(io.BytesIO(raw), "x.safetensors")
        assert not canary.exists(), name
        (home.loras / "by-hand.safetensors").write_bytes(raw)
        listed = library.get("by-hand")
        assert listed.problem, name
        assert listed.models == ()
        with pytest.raises(LoraInvalid):
            library.plan_use(TINY, "by-hand")
        assert not canary.exists(), name
    (home.loras / "by-hand.safetensors").unlink()
    assert library.all() == []
    assert {path.name for path in home.loras.iterdir()} <= {".digests.json"}


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "a", "a.safetensors.pt", ".safetensors.exe"])
def test_files_of_other_formats_are_refused_by_their_ending(library: LoraLibrary, content: bytes, name: str) -> None:
    with pytest.raises(LoraInvalid, match="can run code"):
        library.add(io.BytesIO(content), name)


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        (torch.float32, float("nan")),
        (torch.float32, float("inf")),
        (torch.float16, float("nan")),
        (torch.float64, float("-inf")),
        (torch.bfloat16, float("nan")),
        (torch.bfloat16, float("inf")),
        (torch.float8_e4m3fn, float("nan")),
        (torch.float8_e5m2, float("inf")),
    ],
)
def test_a_single_value_that_is_no_number_is_found(
    library: LoraLibrary, shape: WanShape, dtype: torch.dtype, bad: float
) -> None:
    tensors, metadata = diffusers_file(random_adapter(shape))
    tensors = {name: value.to(dtype) for name, value in tensors.items()}
    library.add(io.BytesIO(save(tensors, metadata)), "good.safetensors")
    name = next(reversed(tensors))
    wide = tensors[name].to(torch.float32)
    wide[-1, -1] = bad
    tensors[name] = wide.to(dtype)
    with pytest.raises(LoraInvalid, match="not numbers"):
        library.add(io.BytesIO(save(tensors, metadata)), "bad.safetensors")


def test_more_than_the_limit_is_refused_and_leaves_nothing(home: Home, content: bytes) -> None:
    reader = LoraFileReader(ModelShapes(EMBEDDED_MODELS))
    with pytest.raises(BodyTooLarge):
        receive(io.BytesIO(content), home.loras, "a.safetensors", reader, limit=len(content) - 1)
    assert list(home.loras.iterdir()) == []
    assert receive(io.BytesIO(content), home.loras, "a.safetensors", reader, limit=len(content)).new


@pytest.mark.parametrize(
    ("filename", "stem"),
    [
        ("../../etc/passwd.safetensors", "passwd"),
        ("..\\..\\x.safetensors", "x"),
        ("C:\\Windows\\x.SAFETENSORS", "x"),
        ("/abs/u b.safetensors", "u-b"),
        (".hidden.safetensors", "hidden"),
        ("a b&c;d|e.safetensors", "a-b-c-d-e"),
        ("wan2.2_v1.1.safetensors", "wan2.2_v1.1"),
    ],
)
def test_names_become_safe(filename: str, stem: str) -> None:
    assert safe_stem(filename) == stem


@pytest.mark.parametrize("name", ["", "...", "/", "样式", "CON", "nul.x", "\x00"])
def test_names_that_leave_nothing_safe_get_one_that_tells_them_apart(name: str) -> None:
    assert safe_stem(name).startswith("lora-")
    assert safe_stem(name) == safe_stem(name) != safe_stem(f"{name}样")


@pytest.mark.parametrize("name", ["ü b", "a\u202egpj", "x" * 300, "glow✨", "Ｇlow", "ночь-1"])
def test_a_name_that_loses_a_character_gets_a_digest(name: str) -> None:
    stem = safe_stem(f"/abs/{name}.safetensors")
    assert re.fullmatch(r"[A-Za-z0-9._-]*-[0-9a-f]{8}", stem)
    assert len(stem) <= 100
    assert stem != safe_stem(f"{name}é")
    assert stem == safe_stem(unicodedata.normalize("NFD", name)), "the same name in another Unicode form"


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("水墨B", "油画B"), 2),
        (("Été", "Ete"), 2),
        (("glow✨", "glow🔥"), 2),
        (("дом", "лес"), 2),
        (("a|b", "a:b"), 2),
        (("neón", unicodedata.normalize("NFD", "neón")), 1),
    ],
)
def test_names_are_taken_as_they_were_written(
    library: LoraLibrary, home: Home, shape: WanShape, names: tuple[str, str], ids: int
) -> None:
    files = [save(*kohya_file(random_adapter(shape, seed=seed))) for seed in range(2)]
    first = library.add(io.BytesIO(files[0]), f"{names[0]}.safetensors")
    if ids == 1:
        with pytest.raises(LoraExists):
            library.add(io.BytesIO(files[1]), f"{names[1]}.safetensors")
    else:
        assert library.add(io.BytesIO(files[1]), f"{names[1]}.safetensors").id != first.id
    if "|" not in names[0]:
        assert first.title == names[0]
        assert library.get(names[0]) == library.get(first.id) == first
    for lora in library.all():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", lora.id)
        assert library.plan_use(TINY, lora.id)[0].id == lora.id
    assert len(library.all()) == ids


@pytest.mark.parametrize(
    "name", ["../../夜.safetensors", "..\\夜.safetensors", "夜\x00\u202e.safetensors", ".夜.safetensors"]
)
def test_a_name_in_another_script_stays_in_the_folder(
    library: LoraLibrary, home: Home, content: bytes, name: str
) -> None:
    (path,) = (file.path for file in library.add(io.BytesIO(content), name).files)
    assert (path.parent, path.name[0]) == (home.loras, "夜")
    assert path.name.isprintable()


@pytest.mark.parametrize(
    ("high", "low", "title"),
    [
        ("水墨_high_noise", "水墨_low_noise", "水墨"),
        ("水墨高噪", "水墨低噪", "水墨"),
        ("ночь-HIGH", "ночь-LOW", "ночь"),
        ("café_hinoise_v2", unicodedata.normalize("NFD", "café_lonoise_v2"), "café_v2"),
        ("✨glow✨ H_noise", "✨glow✨ L_noise", "✨glow✨"),
        ("WANT2VHIGHNOISEGLOW", "WANT2VLOWNOISEGLOW", "WANT2V_GLOW"),
    ],
)
def test_pairs_in_any_script_are_one_lora(
    library: LoraLibrary, shape: WanShape, high: str, low: str, title: str
) -> None:
    for seed, name in enumerate((high, low)):
        raw = save(*comfyui_file(random_adapter(shape, seed=seed)))
        lora = library.add(io.BytesIO(raw), f"{name}.safetensors")
    assert (lora.is_pair, lora.title, len(library.all())) == (True, title, 1)
    assert [file.expert for file in library.plan_use(TINY, title)[0].files] == ["high", "low"]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("lokr_w1", "lokr_w2"), "LoKr"),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "LoHa"),
        (("oft_blocks",), "OFT"),
        (("lora_A.one.weight", "lora_B.one.weight", "lora_A.two.weight", "lora_B.two.weight"), "bundles 2 LoRAs"),
        (("weight", "bias"), "complete model"),
    ],
)
@pytest.mark.parametrize("prefix", ["diffusion_model.blocks.0.cross_attn.v", "blocks.1.ffn.0"])
def test_what_is_intact_but_not_supported_is_refused_by_its_name(
    library: LoraLibrary, prefix: str, names: tuple[str, ...], word: str
) -> None:
    raw = save({f"{prefix}.{name}": torch.zeros(4, 4) for name in names})
    with pytest.raises(LoraUnsupported, match=word) as refused:
        library.add(io.BytesIO(raw), "style.safetensors")
    assert "damaged" not in refused.value.message


def test_integers_are_not_supported_and_a_cut_file_is_damaged(
    library: LoraLibrary, home: Home, shape: WanShape, content: bytes
) -> None:
    tensors, _ = diffusers_file(random_adapter(shape))
    raw = save({name: value.to(torch.int8) for name, value in tensors.items()})
    with pytest.raises(LoraUnsupported, match="type I8"):
        library.add(io.BytesIO(raw), "int8.safetensors")
    (home.loras / "int8.safetensors").write_bytes(raw)
    with pytest.raises(LoraUnsupported, match="type I8"):
        library.plan_use(TINY, "int8")
    with pytest.raises(LoraInvalid) as damaged:
        library.add(io.BytesIO(content[:-1]), "cut.safetensors")
    assert not isinstance(damaged.value, LoraUnsupported)


@pytest.mark.parametrize("name", ["a.b", "__metadata__", "x\\n"])
def test_a_repeated_name_is_the_reason(library: LoraLibrary, name: str) -> None:
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b'{"%b":%b,"%b":%b}' % (name.encode(), entry, name.encode(), entry)
    with pytest.raises(LoraInvalid, match="twice"):
        library.add(io.BytesIO(struct.pack("<Q", len(header)) + header + b"\0" * 4), "x.safetensors")


def test_parts_that_a_model_lacks_are_left_out_even_where_a_lora_must_be_applied(
    library: LoraLibrary, home: Home, shape: WanShape
) -> None:
    tensors, metadata = comfyui_file(random_adapter(shape))
    tensors["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.ones(2, 4)
    tensors["diffusion_model.patch_embedding.diff"] = torch.ones(shape.dim, 36, 1, 2, 2)
    write_lora(home.loras / "part.safetensors", (tensors, metadata))
    assert library.get("part").models == ("tiny-i2v-a14b",), "its first layer is one for images"
    _, notes = library.plan_use(TINY, "part", on_failure=OnLoraFailure.FAIL)
    assert f"2 of {len(tensors)} tensors" in notes[-1]
    assert "is applied" in notes[-1]


@pytest.mark.parametrize(
    ("high", "low", "pair"),
    [
        ("style_high_noise", "style_low_noise", "style"),
        ("style-HIGH", "style-LOW", "style"),
        ("Style_H", "style_L", "Style"),
        ("HN_style", "LN_style", "style"),
        ("high_noise_model", "low_noise_model", "high-low-pair"),
        ("wan22-HighNoise-v1", "wan22-lownoise-v1", "wan22_v1"),
        ("style_h", "style_l", "style"),
        ("high_quality", "low_quality", "quality"),
    ],
)
def test_two_files_that_differ_in_the_expert_are_one_lora(
    library: LoraLibrary, home: Home, shape: WanShape, high: str, low: str, pair: str
) -> None:
    for seed, name in enumerate((low, high)):
        write_lora(home.loras / f"{name}.safetensors", comfyui_file(random_adapter(shape, seed=seed)))
    assert [lora.id for lora in library.all()] == [pair]
    use, notes = library.plan_use(TINY, pair, strength=1.0, strength_2=0.25)
    assert [(file.name, file.expert) for file in use.files] == [
        (f"{high}.safetensors", "high"),
        (f"{low}.safetensors", "low"),
    ]
    assert use.strength_2 == 0.25
    assert "high-noise expert" in notes[0]
    half, _ = library.plan_use(TINY, pair, expert="low")
    assert [(file.name, file.expert) for file in half.files] == [(f"{low}.safetensors", "low")]
    by_hand, _ = library.plan_use(TINY, high, expert="low")
    assert [(file.name, file.expert) for file in by_hand.files] == [(f"{high}.safetensors", "low")]


def test_a_single_file_goes_where_metadata_or_name_say_and_the_metadata_win(
    library: LoraLibrary, home: Home, shape: WanShape
) -> None:
    adapter = comfyui_file(random_adapter(shape))
    write_lora(home.loras / "one_high_noise.safetensors", adapter)
    write_lora(home.loras / "two_high_noise.safetensors", adapter, wan22__expert="low")
    write_lora(home.loras / "three.safetensors", adapter, ss_output_name="three-HIGH")
    write_lora(home.loras / "four.safetensors", adapter, wan22__expert="both")
    write_lora(home.loras / "high_quality.safetensors", adapter)
    places = {lora.id: library.plan_use(TINY, lora.id)[0].files[0].expert for lora in library.all()}
    assert places == {
        "one_high_noise": "high",
        "two_high_noise": "low",
        "three": "high",
        "four": "both",
        "high_quality": "both",
    }
    assert "by its metadata" in library.plan_use(TINY, "two_high_noise")[1][0]
    assert library.plan_use(TINY, "four")[1] == ()


def test_a_file_with_parts_for_both_experts_goes_to_both_by_its_own_names(
    library: LoraLibrary, home: Home, shape: WanShape
) -> None:
    high, low = diffusers_file(random_adapter(shape)), diffusers_file(random_adapter(shape), "transformer_2.")
    write_lora(home.loras / "a_high.safetensors", (high[0] | low[0], {}))
    write_lora(home.loras / "b.safetensors", (low[0], {}))
    assert library.get("a_high").files[0].decided_by == "keys"
    assert library.plan_use(TINY, "a_high")[0].files[0].expert == "both"
    assert library.plan_use(TINY, "b")[0].files[0].expert == "low"
    with pytest.raises(LoraIncompatible, match="high-noise expert"):
        library.plan_use(TINY, "b", expert="high")


def test_a_wrong_base_is_refused_by_its_name(library: LoraLibrary, home: Home) -> None:
    full_size = {f"diffusion_model.blocks.0.self_attn.q.lora_{f}.weight": torch.zeros(s) for f, s in
                 (("A", (1, 3072)), ("B", (3072, 1)))}  # fmt: skip
    write_lora(home.loras / "five.safetensors", (full_size, {}))
    with pytest.raises(LoraIncompatible, match="made for TI2V-5B or FastWan2") as refused:
        library.plan_use(TINY, "five")
    made_for = ["TI2V-5B", "FastWan2.2-TI2V-5B"]
    assert refused.value.details == {"lora": "five", "model": TINY.id, "made_for": made_for}
    with pytest.raises(LoraIncompatible):
        library.plan_use(MODELS["T2V-A14B"], "five")
    use, _ = library.plan_use(MODELS["TI2V-5B"], "five")
    assert use.files[0].expert == "both"
    assert list(library.get("five").models) == made_for


def test_a_foreign_lora_is_refused_when_it_is_taken_in(library: LoraLibrary) -> None:
    with pytest.raises(LoraInvalid, match="no LoRA for a Wan model"):
        library.add(io.BytesIO(save(*lightx2v_file(random_adapter(FOREIGN)))), "x.safetensors")


def test_a_partial_match_is_announced_or_refused_as_asked(library: LoraLibrary, home: Home, shape: WanShape) -> None:
    tensors, metadata = comfyui_file(random_adapter(shape))
    tensors["diffusion_model.blocks.0.self_attn.q.dora_scale"] = torch.ones(4)
    write_lora(home.loras / "part.safetensors", (tensors, metadata))
    _, notes = library.plan_use(TINY, "part")
    assert f"1 of {len(tensors)} tensors" in notes[-1]
    assert "left out" in notes[-1]
    with pytest.raises(LoraIncompatible, match="dora_scale"):
        library.plan_use(TINY, "part", on_failure=OnLoraFailure.FAIL)


@pytest.fixture
def theirs(tmp_path: Path, shape: WanShape) -> Path:
    """A LoRA in the folder of another program."""
    folder = tmp_path / "ComfyUI" / "loras"
    folder.mkdir(parents=True)
    return write_lora(
        folder / "glow.safetensors", comfyui_file(random_adapter(shape)), modelspec__trigger_phrase="glow"
    )


@pytest.fixture(params=["same disk", "another disk"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a second name may be given to a file."""

    if request.param == "another disk":
        monkeypatch.setattr(os, "link", _another_disk)
    return str(request.param)


def _another_disk(*_: object, **__: object) -> None:
    raise OSError(errno.EXDEV, "another disk")


def test_a_file_of_another_program_is_used_where_it_is(
    library: LoraLibrary, home: Home, theirs: Path, disk: str
) -> None:
    before = theirs.read_bytes()
    assert not library.has(theirs)
    lora = library.adopt(theirs)
    assert (lora.id, lora.trigger_words, [one.id for one in library.all()]) == ("glow", ("glow",), ["glow"])
    inside = home.loras / "glow.safetensors"
    assert inside.samefile(theirs)
    assert inside.is_symlink() == (disk == "another disk")
    use, _ = library.plan_use(TINY, "glow")
    assert library.open_file(use.files[0]).read_bytes() == before
    assert LoraLibrary(home).get("glow").models == lora.models, "a server that starts later sees it too"
    assert library.has(theirs)
    assert library.adopt(theirs).id == "glow"
    assert len(library.all()) == 1
    library.delete("glow")
    assert (theirs.read_bytes(), library.all(), inside.is_symlink()) == (before, [], False)
    linked = json.loads(home.config_file.read_text())["loras"]["linked"] if home.config_file.exists() else {}
    assert linked == {}
    assert library.adopt(theirs, "other").id == "other"


def test_a_link_that_nobody_took_in_or_that_leads_elsewhere_now_is_not_followed(
    library: LoraLibrary, home: Home, theirs: Path, shape: WanShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = write_lora(theirs.with_name("secret.safetensors"), comfyui_file(random_adapter(shape, seed=3)))
    (home.loras / "planted.safetensors").symlink_to(secret)
    assert library.all() == []
    monkeypatch.setattr(os, "link", _another_disk)
    use, _ = library.plan_use(TINY, library.adopt(theirs).id)
    inside = home.loras / "glow.safetensors"
    inside.unlink()
    inside.symlink_to(secret)
    assert library.all() == []
    with pytest.raises(LoraNotFound):
        library.open_file(use.files[0])
    home.config_file.write_text("not JSON")
    inside.unlink()
    with pytest.raises(BadSettings):
        library.adopt(theirs)
    assert not inside.is_symlink(), "what could not be noted is not linked"


def test_a_link_whose_file_went_away_leaves_its_name_to_the_next_one(
    library: LoraLibrary, home: Home, theirs: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_disk:
        other_disk.setattr(os, "link", _another_disk)
        library.adopt(theirs)
    theirs.unlink()
    assert library.all() == []
    assert library.add(io.BytesIO(content), "glow.safetensors").id == "glow"
    assert not (home.loras / "glow.safetensors").is_symlink()


def test_what_another_program_has_is_judged_as_an_upload_is(
    library: LoraLibrary, home: Home, theirs: Path, shape: WanShape
) -> None:
    nan = comfyui_file(random_adapter(shape))
    next(iter(nan[0].values())).view(-1)[0] = float("nan")
    bad = write_lora(theirs.with_name("nan.safetensors"), nan)
    foreign = write_lora(theirs.with_name("foreign.safetensors"), lightx2v_file(random_adapter(FOREIGN)))
    for path in (bad, foreign, theirs.with_name("absent.safetensors")):
        with pytest.raises(LoraInvalid):
            library.adopt(path)
    assert [path.name for path in home.loras.glob("*.safetensors")] == []
    assert library.inspect(theirs) is not None
    assert library.inspect(theirs.with_name("absent.safetensors")) is None


def test_files_of_one_name_are_told_apart_by_their_folders(
    library: LoraLibrary, home: Home, tmp_path: Path, shape: WanShape
) -> None:
    for seed, folder in enumerate(("first", "second")):
        for expert in ("high", "low"):
            (tmp_path / folder).mkdir(exist_ok=True)
            adapter = comfyui_file(random_adapter(shape, seed=2 * seed + (expert == "low")))
            library.adopt(write_lora(tmp_path / folder / f"{expert}_noise_model.safetensors", adapter))
    assert [lora.id for lora in library.all()] == ["high-low-pair", "second"]
    assert all(lora.is_pair for lora in library.all())
    (tmp_path / "third" / "second").mkdir(parents=True)
    other = comfyui_file(random_adapter(shape, seed=9))
    moved = write_lora(tmp_path / "third" / "second" / "high_noise_model.safetensors", other)
    with pytest.raises(LoraExists):
        library.adopt(moved)


def test_wishes_that_make_no_sense(library: LoraLibrary, content: bytes) -> None:
    library.add(io.BytesIO(content), "a.safetensors")
    for strength in (5.0, -4.1, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest):
            library.plan_use(TINY, "a", strength=strength)
        with pytest.raises(InvalidRequest):
            library.plan_use(TINY, "a", strength_2=strength)
    with pytest.raises(InvalidRequest):
        library.plan_use(TINY, "a", expert="middle")
    assert library.plan_use(TINY, "a", strength=0.0)[0].strength_2 == 0.0
    for unknown in ("b", "../a", "a/../a", "", "loras/a", "\x00"):
        with pytest.raises(LoraNotFound):
            library.plan_use(TINY, unknown)


def test_a_file_that_changed_or_went_away_is_noticed(
    library: LoraLibrary, home: Home, shape: WanShape, content: bytes
) -> None:
    library.add(io.BytesIO(content), "a.safetensors")
    (ref,) = library.plan_use(TINY, "a")[0].files
    (home.loras / "a.safetensors").rename(home.loras / "renamed.safetensors")
    assert library.open_file(ref).name == "renamed.safetensors"
    write_lora(home.loras / "renamed.safetensors", kohya_file(random_adapter(shape, seed=9)))
    with pytest.raises(LoraNotFound):
        library.open_file(ref)
    with pytest.raises(LoraNotFound):
        LoraLibrary(home).open_file(LoraFileRef("0" * 64, "renamed.safetensors", "both"))


def test_digests_are_remembered_and_survive_a_spoiled_memory(home: Home, tmp_path: Path, content: bytes) -> None:
    LoraLibrary(home, embedded=tmp_path).add(io.BytesIO(content), "a.safetensors")
    memory = home.loras / ".digests.json"
    (path, entry) = next(iter(json.loads(memory.read_text()).items()))
    assert path.endswith("a.safetensors")
    first = LoraLibrary(home, embedded=tmp_path).plan_use(TINY, "a")[0].files[0].sha256
    assert first == entry[2]
    for spoiled in ("{", "[]", '{"x": 1}', json.dumps({path: [1, 2, "0" * 64]})):
        memory.write_text(spoiled)
        assert LoraLibrary(home, embedded=tmp_path).plan_use(TINY, "a")[0].files[0].sha256 == first


def test_deleting(library: LoraLibrary, home: Home, shape: WanShape, tmp_path: Path) -> None:
    for name in ("s_high_noise", "s_low_noise", "t"):
        write_lora(home.loras / f"{name}.safetensors", comfyui_file(random_adapter(shape)))
    write_lora(tmp_path / "embedded" / "ours.safetensors", comfyui_file(random_adapter(shape)))
    library.delete("s")
    assert [lora.id for lora in library.all()] == ["ours", "t"]
    with pytest.raises(LoraNotFound):
        library.delete("s")
    with pytest.raises(StateConflict):
        library.delete("ours")
    with pytest.raises(LoraExists):
        library.add(io.BytesIO((home.loras / "t.safetensors").read_bytes()), "ours.safetensors")
    assert library.plan_use(TINY, "ours")[0].id == "ours"


def test_links_that_lead_out_of_the_folder_are_no_loras(
    library: LoraLibrary, home: Home, shape: WanShape, tmp_path: Path
) -> None:
    outside = write_lora(tmp_path / "outside" / "o.safetensors", comfyui_file(random_adapter(shape)))
    (home.loras / "link.safetensors").symlink_to(outside)
    (home.loras / "folder.safetensors").mkdir()
    assert library.all() == []
    assert library.find("link") is None


def test_names_that_fold_into_one_id_stay_apart(library: LoraLibrary, home: Home, shape: WanShape) -> None:
    for name in ("a b", "a-b", "a&b"):
        write_lora(home.loras / f"{name}.safetensors", comfyui_file(random_adapter(shape)))
    ids = [lora.id for lora in library.all()]
    assert len(set(ids)) == 3
    assert "a-b" in ids
    assert {library.get(one).files[0].name for one in ids} == {f"{n}.safetensors" for n in ("a b", "a-b", "a&b")}


def test_what_the_header_tells_people(library: LoraLibrary, home: Home, shape: WanShape) -> None:
    preset = {"steps": 4, "guidance_scale": 1.0, "flow_shift": 5, "scheduler": "euler"}
    adapter = comfyui_file(random_adapter(shape))
    write_lora(
        home.loras / "fast.safetensors",
        adapter,
        wan22__trigger_words='["glow", " ring ", "glow"]',
        wan22__preset=json.dumps(preset),
    )
    assert library.get("fast").trigger_words == ("glow", "ring")
    assert library.preset("fast") == preset | {"flow_shift": 5.0}
    assert library.preset("nobody") is None
    for name, bad in (("x", "{"), ("y", '{"steps": 0}'), ("z", '{"model": "other"}'), ("v", '{"guidance_scale": 1e9}')):
        write_lora(home.loras / f"{name}.safetensors", adapter, wan22__preset=bad)
        assert "wan22.preset" in (library.get(name).problem or "")


def test_well_known_distilled_loras_bring_their_settings_by_name(
    library: LoraLibrary, home: Home, shape: WanShape
) -> None:
    for side in ("high", "low"):
        name = f"wan2.2_t2v_A14b_{side}_noise_lora_rank64_lightx2v_4step_1217.safetensors"
        write_lora(home.loras / name, comfyui_file(random_adapter(shape)))
    (lora,) = library.all()
    assert library.preset(lora.id) == {"steps": 4, "guidance_scale": 1.0, "guidance_scale_2": 1.0, "flow_shift": 5.0}


def test_a_pair_uploaded_under_one_name_is_one_lora(library: LoraLibrary, shape: WanShape) -> None:
    for seed, side in enumerate(("high", "low")):
        raw = save(*comfyui_file(random_adapter(shape, seed=seed)))
        lora = library.add(io.BytesIO(raw), f"{side}_noise_model.safetensors", "Four steps")
    assert (lora.id, lora.is_pair) == ("Four-steps", True)
    assert [file.name for file in lora.files] == [
        "Four steps_high_noise.safetensors",
        "Four steps_low_noise.safetensors",
    ]
    with pytest.raises(InvalidRequest):
        library.add(io.BytesIO(b""), "a.safetensors", "x" * 101)
