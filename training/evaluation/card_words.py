"""The texts of the model cards that are specific to each tiny model.

Plain text only; figures always come from the notes.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.recipes.models import I2V, T2V, TI2V, SamplingSettings


@dataclass(frozen=True)
class Words:
    """The model-specific texts of a card."""

    tags: tuple[str, ...]
    introduction: str
    #: Training stage -> its title in the table.
    stages: dict[str, str]
    making: str
    limits: str
    #: Pipeline of the example call, and whether it takes an image.
    pipeline: str = "WanPipeline"
    image: bool = False

    def example(self, settings: SamplingSettings) -> str:
        """Return the example as a code block in the style of the formatter."""
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
It was trained at one size and one length; others run but may look wrong. Use it to try, test and demonstrate the
software, and the real Wan2.2 weights to make videos."""

_FLOW = "Flow matching with shift 3, 10 % empty captions; Muon for matrices and AdamW for the rest."

WORDS = {
    T2V.name: Words(
        tags=("text-to-video",),
        introduction="""A very small text-to-video model with the structure of Wan2.2 T2V-A14B: a causal 3D
autoencoder, a UMT5 text encoder and two `WanTransformer3DModel` experts that share the noise levels at a boundary of
0.875. It is fully trained, on clips of one moving shape, so that the whole path from caption to video
can be run, tested and demonstrated on any CPU in seconds.""",
        stages={
            "autoencoder": "video autoencoder",
            "clips": "encoding clips",
            "common": "common network (all noise levels, with the text encoder)",
            "high": "high-noise expert",
            "low": "low-noise expert",
        },
        making=_FLOW,
        limits=_LIMITS.format(
            weakest="""Spinning is its weakest motion: corners soften while they turn, and occasionally a square does
not turn."""
        ),
    ),
    I2V.name: Words(
        tags=("image-to-video",),
        introduction="""A very small image-to-video model with the structure of Wan2.2 I2V-A14B: two
`WanTransformer3DModel` experts
that share the noise levels at a boundary of 0.9 and take a mask and an encoded image as 20 additional channels. It
was initialised from tiny-t2v-a14b, whose autoencoder, tokenizer and text encoder it shares. Given an image of a shape
and a caption, it makes the shape perform the motion in the caption; with a second image the clip ends there.""",
        stages={
            "clips": "encoding clips and conditions",
            "high": "high-noise expert",
            "low": "low-noise expert",
        },
        making=_FLOW + " A quarter of the clips were conditioned on their last frame as well.",
        limits=_LIMITS.format(
            weakest="""Images of
anything else come back as shapes and flat colours, because its autoencoder knows nothing else. Caption and image
should agree; a mismatch is not part of the score."""
        ),
        pipeline="WanImageToVideoPipeline",
        image=True,
        folder=I2V.name,
    ),
    TI2V.name: Words(
        tags=("text-to-video", "image-to-video"),
        introduction="""A very small model for text with an optional image, with the structure of Wan2.2
TI2V-5B: a residual autoencoder that works on patches of two pixels (latents of 48 channels at a sixteenth of the
size), a UMT5 text encoder and one `WanTransformer3DModel`. An input image is
the first latent frame, with time 0 for its tokens, so the
stock `WanPipeline` and `WanImageToVideoPipeline` both open the folder.""",
        stages={
            "autoencoder": "video autoencoder",
            "clips": "encoding clips",
            "network": "transformer and text encoder",
        },
        making=_FLOW
        + """ Half of the clips were trained with a clean first latent frame. The text encoder was initialised from
tiny-t2v-a14b.""",
        limits=_LIMITS.format(
            weakest="""From text alone, rings and circles are its weakest shapes: they often come out dented. Images
of anything else come back as shapes and flat colours, because its autoencoder knows nothing else. Width and height
must be multiples of 32."""
        ),
        folder=TI2V.name,
    ),
}
