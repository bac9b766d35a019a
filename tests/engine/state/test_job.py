"""A saved and restored run equals an uninterrupted one; a state that does not fit is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend.core.errors.generation import StateMismatch
from backend.core.lora.receipt import FileReceipt, KeyCount, LoraReceipt
from backend.core.requests.forms import Scheduler
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.lora.stack import LoraStack
from backend.engine.state import job as job_state
from backend.engine.state.job import restore_state, write_state
from backend.engine.state.kept_latents import KeptLatents, read_latents, write_latents
from tests.engine.samples import MODES, SAMPLERS, finish, sample
from tests.support.random_model import build_random_model

STEPS = 10


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("mode", list(MODES))
def test_a_run_restored_after_any_step_ends_the_same_to_the_bit(
    request: pytest.FixtureRequest, tmp_path: Path, mode: str, scheduler: Scheduler
) -> None:
    one = sample(request, mode, scheduler=scheduler, steps=STEPS, num_frames=5)
    job = one.start()
    while not job.done:
        job.step()
        write_state(job, tmp_path / f"{job.index}")
    for index in range(1, STEPS + 1):
        again = one.start()
        restore_state(again, tmp_path / f"{index}")
        assert again.index == index
        assert again.done == (index == STEPS)
        again.estimate  # noqa: B018 - a preview can be drawn at once
        assert torch.equal(finish(again), job.latents)
        assert again.latents.dtype == job.latents.dtype


def test_in_half_precision_as_on_a_gpu_too(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    one = sample(request, "t2v", scheduler=Scheduler.EULER, steps=4, num_frames=5)
    pipeline = one.components.pipeline.__class__.from_pretrained(
        one.components.folder, dtype={"default": torch.bfloat16, "vae": torch.float32}
    ).to(one.components.device)
    half = replace(one, components=replace(one.components, pipeline=pipeline))
    job, again = half.start(), half.start()
    job.step()
    assert job.latents.dtype == torch.bfloat16
    write_state(job, tmp_path / "state")
    restore_state(again, tmp_path / "state")
    assert torch.equal(finish(again), finish(job))
    with pytest.raises(StateMismatch, match="precision"):
        restore_state(one.start(), tmp_path / "state")


def test_a_restored_job_does_not_affect_another_one(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    one, other = sample(request, "i2v", num_frames=5), sample(request, "i2v", num_frames=5, seed=9)
    expected = one.run(), other.run()
    job, neighbour = one.start(), other.start()
    for _ in range(2):
        job.step()
        neighbour.step()
    write_state(job, tmp_path / "state")
    again = one.start()
    restore_state(again, tmp_path / "state")
    while not again.done:
        again.step()
        neighbour.step()
    assert torch.equal(again.latents, expected[0])
    assert torch.equal(neighbour.latents, expected[1])


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The state of a T2V job after two of six steps."""
    job = sample(request, "t2v", num_frames=5).start()
    job.step()
    job.step()
    write_state(job, tmp_path / "state")
    return tmp_path / "state"


def test_a_state_is_safetensors_with_a_json_record(state: Path) -> None:
    with safe_open(state, framework="pt") as file:
        record = json.loads(file.metadata()["wan22"])
        names = set(file.keys())
    assert names == {"latents", "scheduler.last_sample", "scheduler.model_output_0", "scheduler.model_output_1"}
    assert (record["kind"], record["format"], record["step"], record["seed"]) == ("job_state", 1, 2, 1)
    assert record["libraries"]["torch"] == torch.__version__
    assert record["scheduler"] == {"lower_order_nums": 2, "this_order": 2}


@pytest.mark.parametrize("values", [{"seed": 2}, {"steps": 7}, {"scheduler": Scheduler.EULER}, {"guidance_scale": 4.5}])
def test_a_state_of_another_request_is_refused(
    request: pytest.FixtureRequest, state: Path, values: dict[str, object]
) -> None:
    job = sample(request, "t2v", num_frames=5, **values).start()
    before = job.latents
    with pytest.raises(StateMismatch, match="another request") as caught:
        restore_state(job, state)
    assert caught.value.details == {"differs": "request"}
    assert job.index == 0
    assert job.latents is before
    assert job.scheduler.begin_index == 0


@pytest.mark.parametrize("values", [{"fps": 30.0}, {"crf": 30}, {"keep_latents": True}])
def test_values_that_do_not_affect_the_latents_may_change(
    request: pytest.FixtureRequest, state: Path, values: dict[str, object]
) -> None:
    job = sample(request, "t2v", num_frames=5, **values).start()
    restore_state(job, state)
    assert job.index == 2


def test_a_state_made_with_other_loras_is_refused(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    def stack(digest: str, outcome: str = "applied") -> LoraStack:
        keys = {"high": KeyCount(8, 0), "low": KeyCount(8, 0)}
        file = FileReceipt("style.safetensors", digest, "both", "peft", "tiny", (4,), (1.0, 1.0), keys, ())
        return LoraStack(one.components.device, (LoraReceipt("style", outcome, {"high": 1.0}, (file,), ("red",)),))

    one = sample(request, "t2v", num_frames=5)
    job = one.start()
    job.loras = stack("a" * 64)
    job.step()
    write_state(job, tmp_path / "state")
    for other in (None, stack("b" * 64), stack("a" * 64, "skipped")):
        again = one.start()
        again.loras = other
        with pytest.raises(StateMismatch, match="other LoRAs") as caught:
            restore_state(again, tmp_path / "state")
        assert caught.value.details == {"differs": "loras"}
    again = one.start()
    again.loras = stack("a" * 64)
    restore_state(again, tmp_path / "state")
    assert again.index == 1


def test_a_state_of_another_version_is_refused(
    request: pytest.FixtureRequest, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sample(request, "t2v", num_frames=5).start()
    with monkeypatch.context() as patch:
        patch.setattr(job_state, "STATE_FORMAT", 2)
        with pytest.raises(StateMismatch, match="has format 1, this version reads 2") as caught:
            restore_state(job, state)
    assert caught.value.details == {"differs": "format"}
    with monkeypatch.context() as patch:
        other = job_state.library_versions() | {"torch": "9.9"}
        patch.setattr(job_state, "library_versions", lambda: other)
        with pytest.raises(StateMismatch, match="other libraries") as caught:
            restore_state(job, state)
    assert caught.value.details == {"differs": "libraries"}
    restore_state(job, state)


def test_a_state_made_by_other_weights_is_refused(
    request: pytest.FixtureRequest, state: Path, tmp_path: Path, device: str
) -> None:
    one = sample(request, "t2v", num_frames=5)
    folder = build_random_model(tmp_path / "other", seed=1)
    other = replace(one, components=WanPipelineLoader(device).load(folder, one.components.spec))
    other.components.digest.value  # noqa: B018 - waits for it
    with pytest.raises(StateMismatch, match="other weights") as caught:
        restore_state(other.start(), state)
    assert caught.value.details == {"differs": "weights"}


def test_weights_are_identified_by_their_files_until_their_digest_is_known(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    class NotYet:
        """A digest that is never ready, and known only to callers that wait."""

        value_so_far = None
        waited = 0

        def __init__(self, value: str) -> None:
            self._value = value

        @property
        def value(self) -> str:
            self.waited += 1
            return self._value

    def with_digest(components: WanComponents, digest: object, fingerprint: str = "same") -> WanComponents:
        return replace(components, digest=digest, fingerprint=fingerprint)  # type: ignore[arg-type]

    one = sample(request, "t2v", num_frames=5, steps=2)
    known = one.components.digest
    late = NotYet(known.value)
    cases: list[tuple[object, object, str, bool, int]] = [
        # digest at the save, digest at the restore, fingerprint then, fits, waits
        (late, late, "same", True, 0),
        (late, late, "touched", False, 0),
        (known, late, "same", True, 0),
        (known, late, "touched", True, 1),
        (known, NotYet("0" * 64), "touched", False, 1),
        (known, known, "touched", True, 0),
    ]
    for number, (then, now, fingerprint, fits, waits) in enumerate(cases):
        late.waited = 0
        job = replace(one, components=with_digest(one.components, then)).start()
        job.step()
        write_state(job, tmp_path / str(number))
        again = replace(one, components=with_digest(one.components, now, fingerprint)).start()
        if fits:
            restore_state(again, tmp_path / str(number))
            assert torch.equal(again.latents, job.latents)
        else:
            with pytest.raises(StateMismatch, match="other weights"):
                restore_state(again, tmp_path / str(number))
        assert getattr(now, "waited", 0) == waits, number


def damaged_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))


def without_a_part(path: Path) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del tensors["scheduler.last_sample"]
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: save_file({"latents": torch.zeros(1)}, path),
        damaged_value,
        without_a_part,
    ],
    ids=["cut", "empty", "gone", "another file", "a flipped bit", "a missing tensor"],
)
def test_a_damaged_state_is_refused_and_leaves_the_job_alone(
    request: pytest.FixtureRequest, state: Path, damage: Callable[[Path], None]
) -> None:
    damage(state)
    job = sample(request, "t2v", num_frames=5).start()
    with pytest.raises(StateMismatch) as caught:
        restore_state(job, state)
    assert caught.value.details == {"differs": "file"}
    assert torch.equal(finish(job), sample(request, "t2v", num_frames=5).run())


def test_kept_latents_are_returned_only_for_the_same_request_and_vae(
    request: pytest.FixtureRequest, tmp_path: Path, device: str
) -> None:
    one = sample(request, "t2v", num_frames=5, steps=1)
    kept = KeptLatents(one.run(), one.components.weights_digest, ({"id": "style", "reason": None},))
    path = tmp_path / "latents"
    write_latents(path, kept, one.components, one.request)
    decoder = WanPipelineLoader(device).load_decoder(one.components.folder, one.components.spec)
    again = read_latents(path, decoder, replace(one.request, fps=30.0, crf=30, latents_of="x"))
    assert torch.equal(again.latents, kept.latents)
    assert (again.weights_sha256, again.loras) == (kept.weights_sha256, kept.loras)
    with pytest.raises(StateMismatch, match="another request"):
        read_latents(path, decoder, replace(one.request, seed=2))
    folder = build_random_model(tmp_path / "other", seed=1)
    other = WanPipelineLoader(device).load_decoder(folder, one.components.spec)
    with pytest.raises(StateMismatch, match="another VAE") as caught:
        read_latents(path, other, one.request)
    assert caught.value.details == {"differs": "VAE"}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateMismatch, match="cannot be read"):
        read_latents(path, decoder, one.request)
