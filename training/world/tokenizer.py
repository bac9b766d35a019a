"""The tokenizer of the tiny text encoder: one token per word of the world.

Lower-cases, drops punctuation, and has tokens for padding, end of text and unknown words. It is an ordinary
`PreTrainedTokenizerFast`, so `WanPipeline` uses it like that of the full-size model.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.world.scenes import vocabulary

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
#: Length to which the stock pipeline pads prompts by default, in tokens.
LONGEST = 512


def build() -> Any:
    """Build the tokenizer from the vocabulary of the world."""
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
