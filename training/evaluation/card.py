"""The model card: what a tiny model is, how it was trained, and how it scores.

Generated from the notes in the folder alone; the recipe writes the training facts and the judge the scores.
`card_words.py` holds the texts specific to each model.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from training.evaluation.card_words import WORDS, Words
from training.evaluation.scores import ENOUGH, SHARP
from training.recipes import folder
from training.recipes.models import TinyModel
from training.world import scenes
from training.world.split import held_out, training_scenes

DATE = "2026-11-22"
_LINE = 114
_NAMES = {"colour": "foreground colour", "everything": "all four at once"}
_TITLES = {
    "text": "From text",
    "image": "From an image",
    "end image": "From a first and a last image",
}


def write(directory: Path, model: TinyModel) -> None:
    """Write the card into the model folder."""
    notes, words = folder.read_notes(directory), WORDS[model.name]
    size = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    introduction = f"""{words.introduction} {size / 1e6:.1f} MB of weights. Made on {DATE} from its own
    rendered clips alone; it contains no weights of any model outside this family."""
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
    (directory / folder.CARD).write_text("\n".join(parts))


def paragraph(text: str) -> str:
    """Wrap a paragraph to the width of a card."""
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
    if "outline" in scores:
        enough = scores["outline"]["enough"]
        share = f"{enough} / {count} | {enough / count:.1%} |"
        rows += f"\n| outline: overlap with a perfect shape of at least {SHARP} | {share}"
    for name, title in (("first_frame", "first"), ("last_frame", "last")):
        if name in scores:
            enough = scores[name]["enough"]
            rows += (
                f"\n| {title} frame with a PSNR of at least {ENOUGH:.0f} dB | {enough} / {count} "
                f"| {enough / count:.1%} |"
            )
    outline = ""
    if "outline" in scores:
        outline = f"""The overlap of the shape with a perfect one of its kind, place, size and angle (intersection
    over union) is {scores["outline"]["mean"]} on average and {scores["outline"]["least"]} at worst. """
    likenesses = "".join(
        f"The PSNR of the {title} frame against the input image is {scores[name]['mean_db']} dB on average and "
        f"{scores[name]['least_db']} dB at worst. "
        for name, title in (("first_frame", "first"), ("last_frame", "last"))
        if name in scores
    )
    wrong = "; ".join(
        f"{expected} observed as {observed} ({often})" for _, expected, observed, often in scores["mistakes"][:8]
    )
    guidance = f"guidance {settings['guidance']}"
    if settings["guidance_2"] is not None:
        guidance += f" (high-noise expert) and {settings['guidance_2']} (low-noise expert)"
    pipeline = "WanPipeline" if use == "text" else "WanImageToVideoPipeline"
    measured = f"""Measured by `python -m training.evaluation.judge --model {model.name}` with the stock
    `diffusers.{pipeline}` on {count} captions whose combination of colour, shape, motion and background never occurred
    in training, with one clip each and no retries. {"" if use == "text" else _GIVEN} The decoded frames are judged by
    an image analysis that shares no drawing code with the training data; whatever it does not recognise counts as
    wrong."""
    conditions = f"""{outline}{likenesses}Settings: {settings["steps"]} steps, {guidance}, prompts padded to
    {settings["max_sequence_length"]}, {settings["size"]}x{settings["size"]}, {settings["frames"]} frames, float32 on a
    CPU; seed 1000 + position in the held-out list. {scores["seconds_per_clip"]:.1f} s per clip on that machine.
    Most frequent mistakes: {wrong or "none"}."""
    return f"""### {_TITLES[use]}

{paragraph(measured)}

| aspect | correct | share |
|---|---|---|
{rows}

{paragraph(conditions)}
"""


def _world_section() -> str:
    return f"""## Captions it understands

`a {{colour}} {{shape}} {{motion}} on a {{background}} background`

- colours: {", ".join(scenes.COLOURS)}
- shapes: {", ".join(scenes.SHAPES)}
- motions: {", ".join(scenes.MOTIONS)} (only squares and triangles spin)
- backgrounds: {", ".join(scenes.BACKGROUNDS)}

Some other phrasings work too ("red circle moving right, navy background"; "rises", "grows", "rotating"). They
made up a fifth of the training captions and are not part of the score. Unknown words are ignored.

The model was trained on {len(training_scenes())} combinations; a fixed rule (`training/world/split.py`) holds out
the other {len(held_out())}.
"""


def _making_section(notes: dict[str, Any], model: TinyModel, words: Words) -> str:
    recipe = notes["recipe"]
    amounts = {name.removesuffix("_steps"): str(amount) for name, amount in recipe.items() if name.endswith("_steps")}
    amounts["clips"] = f"{recipe['clips']} clips and {recipe['spinning_clips']} extra spinning ones"
    rows = "\n".join(
        f"| {title} | {amounts[name]} | {notes['seconds'][name] / 60:.0f} min |" for name, title in words.stages.items()
    )
    total = sum(notes["seconds"].values()) / 60
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in notes["parameters"].items())
    made = f"""Parameters: {sizes}. Trained in {notes.get("precision", "bfloat16 autocast")}, stored as
    float16 (text encoder float32). {words.making} {notes.get("remark", "")}"""
    return f"""## How it was trained

`python -m training.recipes.train --model {model.name}` (seed {recipe["seed"]}, {notes["device"]});
see `training/README.md`. Times were measured on two CPU cores shared with other work:

| stage | steps | time |
|---|---|---|
{rows}
| total | | {total:.0f} min |

{paragraph(made)}
"""


_GIVEN = """The input image is the first frame of a rendered clip of that scene in which the shape starts almost
anywhere, so that it barely reveals the motion; the object in the image must perform the motion."""

_PREVIEW = """
Motions look natural at {fps} frames per second. `preview.json` holds the linear map from normalised latents to RGB
(0..1) for live previews.
"""
