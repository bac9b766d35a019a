"""The model card: what a tiny model is, how it was made, and how well it does.

Written by the judge from the notes in the folder alone: the making's come from the recipe, the scores
from a real run. What is special about each model is said in `card_words.py`.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from training.evaluation.card_words import WORDS, Words
from training.evaluation.scores import ENOUGH
from training.recipes import folder
from training.recipes.models import TinyModel
from training.world import scenes
from training.world.split import held_out, seen

DATE = "2026-11-22"
_LINE = 114
_NAMES = {"colour": "foreground colour", "everything": "all four at once"}
_TITLES = {
    "text": "From text",
    "image": "From an image",
    "end image": "From a first and a last image",
}


def write(place: Path, model: TinyModel) -> None:
    """Write the card into the model folder."""
    notes, words = folder.read_notes(place), WORDS[model.name]
    size = sum(path.stat().st_size for path in place.rglob("*.safetensors"))
    introduction = f"""{words.introduction} {size / 1e6:.1f} MB of weights. Made on {DATE} from nothing but its own
    drawn clips; it holds no weights of any model but those of this family."""
    parts = [
        _front_matter(words),
        f"# {model.name}\n\n{paragraph(introduction)}\n",
        *(f"![contact sheet](../../../../docs/images/{model.sheet(use).name})\n" for use in notes["scores"]),
        "## Score\n",
        *(_score_section(use, scores, model) for use, scores in notes["scores"].items()),
        _world_section(),
        _making_section(notes, model, words),
        f"## How to use it\n\n{words.example(model.settings)}\n{_PREVIEW.format(fps=scenes.FPS)}",
        f"## Limits\n\n{paragraph(words.limits)}\n",
    ]
    (place / folder.CARD).write_text("\n".join(parts))


def paragraph(text: str) -> str:
    """Fill a paragraph to the width of a card."""
    return textwrap.fill(" ".join(text.split()), _LINE, break_long_words=False, break_on_hyphens=False)


def _front_matter(words: Words) -> str:
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: {words.tags[0]}
tags: [wan2.2, tiny, {", ".join(words.tags)}]
---
"""


def _score_section(use: str, scores: dict[str, Any], model: TinyModel) -> str:
    count, settings = scores["count"], scores["settings"]
    rows = "\n".join(
        f"| {_NAMES.get(aspect, aspect)} | {right} / {count} | {right / count:.1%} |"
        for aspect, right in scores["right"].items()
    )
    for name, title in (("first_frame", "first"), ("last_frame", "last")):
        if name in scores:
            enough = scores[name]["enough"]
            rows += (
                f"\n| {title} frame at least {ENOUGH:.0f} dB like the image given | {enough} / {count} "
                f"| {enough / count:.1%} |"
            )
    likenesses = "".join(
        f"The {title} frame is {scores[name]['mean_db']} dB (PSNR) like the image given on average, "
        f"{scores[name]['least_db']} dB at worst. "
        for name, title in (("first_frame", "first"), ("last_frame", "last"))
        if name in scores
    )
    wrong = "; ".join(f"{asked} seen as {seen_as} ({often})" for _, asked, seen_as, often in scores["mistakes"][:8])
    guidance = f"guidance {settings['guidance']}"
    if settings["guidance_2"] is not None:
        guidance += f" (high-noise expert) and {settings['guidance_2']} (low-noise expert)"
    pipeline = "WanPipeline" if use == "text" else "WanImageToVideoPipeline"
    measured = f"""Measured by `python -m training.evaluation.judge --model {model.name}` with the stock
    `diffusers.{pipeline}` on {count} captions whose combination of colour, shape, motion and background never occurred
    in training, one clip each, no second tries. {"" if use == "text" else _GIVEN} An image analysis that shares no
    drawing code with the training data looks at the decoded frames; whatever it cannot tell counts as wrong."""
    conditions = f"""{likenesses}Settings: {settings["steps"]} steps, {guidance}, prompts padded to
    {settings["max_sequence_length"]}, {settings["size"]}x{settings["size"]}, {settings["frames"]} frames, float32 on a
    CPU; seed 1000 + position in the held-out list. {scores["seconds_per_clip"]:.1f} s per clip on that machine.
    Commonest mistakes: {wrong or "none"}."""
    return f"""### {_TITLES[use]}

{paragraph(measured)}

| asked for | right | share |
|---|---|---|
{rows}

{paragraph(conditions)}
"""


def _world_section() -> str:
    return f"""## What it understands

`a {{colour}} {{shape}} {{motion}} on a {{background}} background`

- colours: {", ".join(scenes.COLOURS)}
- shapes: {", ".join(scenes.SHAPES)}
- motions: {", ".join(scenes.MOTIONS)} (only squares and triangles spin)
- backgrounds: {", ".join(scenes.BACKGROUNDS)}

Some other phrasings work too ("red circle moving right, navy background"; "rises", "grows", "rotating"). They
were a fifth of the training captions and are not part of the score. Unknown words are ignored.

{len(seen())} combinations were trained on, {len(held_out())} were held out by a fixed rule (`training/world/split.py`).
"""


def _making_section(notes: dict[str, Any], model: TinyModel, words: Words) -> str:
    recipe = notes["recipe"]
    amounts = {name.removesuffix("_steps"): str(amount) for name, amount in recipe.items() if name.endswith("_steps")}
    amounts["clips"] = f"{recipe['clips']} clips and {recipe['spinning_clips']} more that spin"
    rows = "\n".join(
        f"| {title} | {amounts[name]} | {notes['seconds'][name] / 60:.0f} min |" for name, title in words.stages.items()
    )
    total = sum(notes["seconds"].values()) / 60
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in notes["parameters"].items())
    made = f"""Parameters: {sizes}. Trained in {notes.get("precision", "bfloat16 autocast")}, stored as
    float16 (text encoder float32). {words.making} {notes.get("remark", "")}"""
    return f"""## How it was made

`python -m training.recipes.train --model {model.name}` (seed {recipe["seed"]}, {notes["device"]});
see `training/README.md`. Times measured on two CPU cores shared with other work:

| stage | steps | time |
|---|---|---|
{rows}
| together | | {total:.0f} min |

{paragraph(made)}
"""


_GIVEN = """The image given is the first frame of a drawn clip of that scene in which the shape starts almost
anywhere, so the picture hardly tells the motion; the motion must happen to the object in it."""

_PREVIEW = """
{fps} frames per second look natural. `preview.json` holds the linear map from normalised latents to RGB (0..1) for
live previews.
"""
