"""Published LoRAs come from a hub, whole and verified, and are used by their name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from backend.core.catalogue.table import MODELS
from backend.core.errors.lookups import StateConflict
from backend.core.errors.models import RepositoryNotFound
from backend.core.errors.requests import LoraInvalid, LoraNotFound
from backend.core.errors.surroundings import StorageFull
from backend.core.lora.presets import known_preset
from backend.core.paths import Home
from backend.models.download.hub import Hub
from backend.models.download.retries import RetryPolicy
from backend.models.lora.library import EMBEDDED_LORAS, LoraLibrary
from backend.models.lora.published import PUBLISHED_LORAS, LoraFetcher, PublishedLora, published_lora
from tests.support.hub import REPOSITORY, Answer, StandIn, stand_in

#: The true names in the repository, and the files of the embedded pair as their content.
NAMES = {expert: f"some-folder/{expert}_noise_model.safetensors" for expert in ("high", "low")}
LORA = PublishedLora("wan2.2-t2v-lightning-4steps", "Four steps", "tiny-t2v-a14b", REPOSITORY, NAMES)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    pair = sorted(EMBEDDED_LORAS.glob("tiny_lightning*"))
    assert len(pair) == 2
    files = {name: path.read_bytes() for name, path in zip(NAMES.values(), pair, strict=True)}
    return files | {"some-folder/other.safetensors": b"never fetched", "README.md": b"nor this"}


@pytest.fixture
def repository(contents: dict[str, bytes]) -> Iterator[StandIn]:
    with stand_in(dict(contents)) as running:
        yield running


def _fetcher(home: Home, repository: StandIn, **more: object) -> LoraFetcher:
    policy = RetryPolicy(attempts=3, first_seconds=0.01)
    return LoraFetcher(home, Hub(repository.endpoint), policy=policy, **more)  # type: ignore[arg-type]


def test_a_pair_is_fetched_once_and_is_a_lora_with_its_preset(home: Home, repository: StandIn) -> None:
    seen: list[tuple[str, int, int]] = []
    paths = _fetcher(home, repository).fetch(LORA, lambda *moment: seen.append(moment))
    assert {path.name for path in paths} == {f"{LORA.id}_{expert}_noise.safetensors" for expert in NAMES}
    assert repository.fetched() == Counter(NAMES.values())
    assert seen[-1][1] == seen[-1][2] == sum(path.stat().st_size for path in paths)
    lora = LoraLibrary(home).get(LORA.id)
    assert lora.is_pair
    assert lora.problem is None
    assert LoraLibrary(home).plan_use(MODELS["tiny-t2v-a14b"], LORA.id)[0].id == LORA.id
    repository.requests.clear()
    assert _fetcher(home, repository).fetch(LORA) == paths
    assert repository.fetched() == Counter()
    paths[0].write_bytes(b"damaged")
    _fetcher(home, repository).fetch(LORA)
    assert repository.fetched() == Counter([NAMES["high"]])


def test_a_busy_hub_and_a_broken_connection_are_waited_for(home: Home, repository: StandIn) -> None:
    repository.answers.append(Answer(503))
    repository.cut.append(100)
    assert all(path.is_file() for path in _fetcher(home, repository).fetch(LORA))


def test_wrong_bytes_are_no_lora(home: Home, repository: StandIn) -> None:
    repository.flip[NAMES["high"]] = 5
    with pytest.raises(LoraInvalid, match="not the file that the hub announced"):
        _fetcher(home, repository).fetch(LORA)
    assert list(home.loras.glob("*.safetensors*")) == []


def test_what_cannot_be_fetched_is_said_before_anything_comes(home: Home, repository: StandIn) -> None:
    with pytest.raises(StorageFull, match="not enough room"):
        _fetcher(home, repository, free_bytes=lambda _folder: 512 * 2**20 + 10).fetch(LORA)
    del repository.files[NAMES["low"]]
    with pytest.raises(RepositoryNotFound, match="any more"):
        _fetcher(home, repository).fetch(LORA)
    assert repository.fetched() == Counter()
    with (
        FileLock(home.loras / ".fetching.lock", thread_local=False),
        pytest.raises(StateConflict, match="Another process"),
    ):
        _fetcher(home, repository).fetch(LORA)


def test_every_published_lora_is_known_with_its_settings() -> None:
    assert set(PUBLISHED_LORAS) == {"wan2.2-t2v-lightning-4steps", "wan2.2-i2v-lightning-4steps"}
    for lora in PUBLISHED_LORAS.values():
        assert lora.model in MODELS
        preset = known_preset(lora.kept_as(Home(Path("/home")), "high").stem)
        assert preset is not None
        assert (preset.steps, preset.guidance_scale, preset.guidance_scale_2) == (4, 1.0, 1.0)
        assert published_lora(lora.id) is lora
    with pytest.raises(LoraNotFound):
        published_lora("something")
