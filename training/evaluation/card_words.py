"""What is special about each tiny model, in the words of its card.

Plain text about the table's members; figures come from the notes and never from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.recipes.models import I2V, T2V, TI2V, Settings


@dataclass(frozen=True)
class Words:
    """The parts of a card that a table cannot say."""

    tags: tuple[str, ...]
    introduction: str
    #: Stage of the training -> its title in the table.
    stages: dict[str, str]
    making: str
    limits: str
    #: Arguments of the example call besides the caption, and its pipeline.
    pipeline: str = "WanPipeline"
    image: bool = False

    def example(self, settings: Settings) -> str:
        """Give the example as a code block that the formatter would leave alone."""
        lines = [f"from diffusers import {self.pipeline}"]
        if self.image:
            lines.append("from diffusers.utils import load_image")
        lines += [
            "",
            f'pipeline = {self.pipeline}.from_pretrained("backend/assets/tiny/{self.folder}")',
            "clip = pipeline(",
        ]
        if self.image:
            lines.append('    image=load_image("circle.png"),')
            lines.append('    prompt="a red circle moving right on a navy background",')
        else:
            lines.append('    "a red circle moving right on a navy background",')
        lines += [
            f"    height={settings.size},",
            f"    width={settings.size},",
            f"    num_frames={settings.frames},",
            f"    num_inference_steps={settings.steps},",
            f"    guidance_scale={settings.guidance},",
        ]
        if settings.guidance_2 is not None:
            lines.append(f"    guidance_scale_2={settings.guidance_2},")
        lines += [f"    max_sequence_length={settings.max_sequence_length},", ").frames[0]"]
        return "\n".join(["```python", *lines, "```"])

    folder: str = T2V.name


_LIMITS = """It knows one shape on a plain background and nothing else: no people, places, styles or camera. {weakest}
It was trained at one size and one length; others run but are not promised to look right. Use it to try, test and
show the software, and the real Wan2.2 weights to make videos."""

_FLOW = "Flow matching with shift 3, 10 % empty captions; Muon for matrices and AdamW for the rest."

WORDS = {
    T2V.name: Words(
        tags=("text-to-video",),
        introduction="""A very small text-to-video model with the structure of Wan2.2 T2V-A14B: a causal 3D
autoencoder, a UMT5 text encoder and two `WanTransformer3DModel` experts that share the noise levels at a boundary of
0.875. It is really trained, on clips of one moving shape, so that the whole path from caption to video
can be run, tested and shown on any CPU in seconds.""",
        stages={
            "autoencoder": "video autoencoder",
            "clips": "encoding clips",
            "common": "common network (all noise levels, with the text encoder)",
            "high": "high-noise expert",
            "low": "low-noise expert",
        },
        making=_FLOW,
        limits=_LIMITS.format(
            weakest="""Spinning is its weakest motion: corners soften while they turn, and now and then a square does
not turn."""
        ),
    ),
    I2V.name: Words(
        tags=("image-to-video",),
        introduction="""A very small image-to-video model with the structure of Wan2.2 I2V-A14B: two
`WanTransformer3DModel` experts
that share the noise levels at a boundary of 0.9 and take a mask and an encoded image as 20 further channels. It
began as tiny-t2v-a14b, whose autoencoder, tokenizer and text encoder it shares. Given a picture of a shape and a
caption, it makes the shape do what the caption says; with a second picture it ends there.""",
        stages={
            "clips": "encoding clips and conditions",
            "high": "high-noise expert",
            "low": "low-noise expert",
        },
        making=_FLOW + " A quarter of the clips was given with its last frame, too.",
        limits=_LIMITS.format(
            weakest="""Pictures of
anything else come back as shapes and flat colours, because its autoencoder knows nothing else. Caption and picture
should agree: what happens when they do not is not part of the score."""
        ),
        pipeline="WanImageToVideoPipeline",
        image=True,
        folder=I2V.name,
    ),
    TI2V.name: Words(
        tags=("text-to-video", "image-to-video"),
        introduction="""A very small model for text with or without an image, with the structure of Wan2.2
TI2V-5B: a residual autoencoder that works on patches of two pixels (latents of 48 channels at a sixteenth of the
size), a UMT5 text encoder and one `WanTransformer3DModel`. An image given is
the first latent frame, with time 0 for its tokens, so the
stock `WanPipeline` and `WanImageToVideoPipeline` both open the folder.""",
        stages={
            "autoencoder": "video autoencoder",
            "clips": "encoding clips",
            "network": "transformer and text encoder",
        },
        making=_FLOW
        + """ Half of the clips were learned with a clean first latent frame. The text encoder began as that of
tiny-t2v-a14b.""",
        limits=_LIMITS.format(
            weakest="""From text alone rings and circles are its weakest shapes: they often come out dented. Pictures
of anything else come back as shapes and flat colours, because its autoencoder knows nothing else. Width and height
must be multiples of 32."""
        ),
        folder=TI2V.name,
    ),
}
