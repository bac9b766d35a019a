"""The model card: what the tiny model is, how it was made, and how well it does.

Written by the judge from a real run; the numbers about training come from the notes in the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import folder, world
from training.scores import ASPECTS, Scores, Settings
from training.split import held_out, seen

DATE = "2026-11-22"
_NAMES = {"colour": "foreground colour", "everything": "all four at once"}
_STAGES = {
    "autoencoder": "video autoencoder",
    "clips": "encoding clips",
    "common": "common network (all noise levels, with the text encoder)",
    "high": "high-noise expert",
    "low": "low-noise expert",
}
_FRONT_MATTER = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
tags: [wan2.2, tiny, text-to-video]
---
"""


def write(place: Path, scores: Scores, settings: Settings, seconds_per_clip: float) -> None:
    """Write the card into the model folder."""
    notes = folder.read_notes(place)
    size = sum(path.stat().st_size for path in place.rglob("*.safetensors"))
    parts = [
        _FRONT_MATTER,
        _introduction(size),
        _score_section(scores, settings, seconds_per_clip),
        _world_section(),
        _making_section(notes),
        _USE.format(settings=settings, fps=world.FPS),
        _LIMITS,
    ]
    (place / folder.CARD).write_text("\n".join(parts))


def _introduction(size: int) -> str:
    return f"""# tiny-t2v-a14b

A very small text-to-video model with the structure of Wan2.2 T2V-A14B: a causal 3D autoencoder, a UMT5 text
encoder and two `WanTransformer3DModel` experts that share the noise levels at a boundary of 0.875. It is really
trained, on clips of one moving shape, so that the whole path from caption to video can be run, tested and shown
on any CPU in seconds. {size / 1e6:.1f} MB of weights. Made on {DATE} from nothing but its own drawn clips; it holds
no weights of any other model.

![contact sheet](../../../../docs/images/tiny-t2v-a14b.png)
"""


def _score_section(scores: Scores, settings: Settings, seconds_per_clip: float) -> str:
    rows = "\n".join(
        f"| {_NAMES.get(aspect, aspect)} | {scores.right[aspect]} / {scores.count} | {scores.share(aspect):.1%} |"
        for aspect in (*ASPECTS, "everything")
    )
    wrong = "; ".join(
        f"{asked} seen as {seen_as} ({often})" for (_, asked, seen_as), often in scores.mistakes.most_common(8)
    )
    return f"""## Score

Measured by `python -m training.judge` with the stock `diffusers.WanPipeline` on {scores.count} captions whose
combination of colour, shape, motion and background never occurred in training (neither of the autoencoder nor of
the experts), one clip each, no second tries. An image analysis that shares no drawing code with the training data
looks at the decoded frames; whatever it cannot tell counts as wrong.

| asked for | right | share |
|---|---|---|
{rows}

Settings: {settings.steps} steps, guidance {settings.guidance} (high-noise expert) and {settings.guidance_2}
(low-noise expert), prompts padded to {settings.max_sequence_length}, {settings.size}x{settings.size},
{settings.frames} frames, float32 on a CPU; seed 1000 + position in the held-out list.
{seconds_per_clip:.1f} s per clip in batches of 12 on
that machine. Commonest mistakes: {wrong or "none"}.
"""


def _world_section() -> str:
    return f"""## What it understands

`a {{colour}} {{shape}} {{motion}} on a {{background}} background`

- colours: {", ".join(world.COLOURS)}
- shapes: {", ".join(world.SHAPES)}
- motions: {", ".join(world.MOTIONS)} (only squares and triangles spin)
- backgrounds: {", ".join(world.BACKGROUNDS)}

Some other phrasings work too ("red circle moving right, navy background"; "rises", "grows", "rotating"). They
were a fifth of the training captions and are not part of the score. Unknown words are ignored.

{len(seen())} combinations were trained on, {len(held_out())} were held out by a fixed rule (`training/split.py`).
"""


def _making_section(notes: dict[str, Any]) -> str:
    recipe, parameters = notes["recipe"], notes["parameters"]
    steps = {name: recipe[f"{name}_steps"] for name in _STAGES if name != "clips"}
    steps["clips"] = f"{recipe['clips']} clips and {recipe['spinning_clips']} more that spin"
    rows = "\n".join(
        f"| {title} | {steps[name]} | {notes['seconds'][name] / 60:.0f} min |" for name, title in _STAGES.items()
    )
    total = sum(notes["seconds"].values()) / 60
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
    return f"""## How it was made

`python -m training.train` (seed {recipe["seed"]}, {notes["device"]}); see `training/README.md`. Times measured on two
CPU cores shared with other work:

| stage | steps | time |
|---|---|---|
{rows}
| together | | {total:.0f} min |

Parameters: {sizes}. Trained in bfloat16 autocast, stored as float16 (text encoder float32). Flow matching with
shift 3, 10 % empty captions; Muon for matrices and AdamW for the rest. {notes.get("remark", "")}
"""


_USE = """## How to use it

```python
from diffusers import WanPipeline

pipeline = WanPipeline.from_pretrained("backend/assets/tiny/tiny-t2v-a14b")
clip = pipeline(
    "a red circle moving right on a navy background",
    height={settings.size},
    width={settings.size},
    num_frames={settings.frames},
    num_inference_steps={settings.steps},
    guidance_scale={settings.guidance},
    guidance_scale_2={settings.guidance_2},
    max_sequence_length={settings.max_sequence_length},
).frames[0]
```

{fps} frames per second look natural. `preview.json` holds the linear map from normalised latents to RGB (0..1) for
live previews.
"""

_LIMITS = """## Limits

It knows one shape on a plain background and nothing else: no people, places, styles or camera. Spinning is its
weakest motion: corners soften while they turn, and now and then a square does not turn. It was trained at
one size and one length; others run but are not promised to look right. Use it to try, test and show the
software, and the real Wan2.2 weights to make videos.
"""
