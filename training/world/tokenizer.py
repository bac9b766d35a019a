"""The tokenizer of the tiny text encoder: one token per word of the world.

Lower-cases, drops punctuation, knows padding, end of text and the unknown word. It is an ordinary
`PreTrainedTokenizerFast`, so `WanPipeline` uses it like the big model's.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.world.scenes import vocabulary

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
#: What the stock pipeline pads prompts to unless told otherwise.
LONGEST = 512


def build() -> Any:
    """Make the tokenizer from the world's vocabulary."""
    words = [PADDING, END, UNKNOWN, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, words.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=LONGEST,
    )
