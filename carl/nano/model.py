"""The embedded model's parts: a small tower, a small decoder, a tokenizer of whole phrases, and their processor.

Everything is a stock transformers class, so the saved folder loads through ``AutoModelForImageTextToText`` and
``AutoProcessor`` like any other model.
"""

from collections.abc import Iterable
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from carl.nano.scenes import COLOURS

hub: Any = transformers
"""transformers, whose annotations are partial."""

CANVAS = 128
"""Side of the picture the model sees, in pixels: a 16x16 room. Smaller frames lie at its top left, black around."""

PATCH = 8
MERGE = 2
"""Patches per side that become one token: a token covers 2x2 tiles, and a picture is 64 tokens."""

IMAGE_TOKENS = (CANVAS // PATCH // MERGE) ** 2
IMAGE, PAD, END = "<image>", "<pad>", "<end>"
BEFORE, AFTER = "<initial>", "<goal>"
SPECIAL = (PAD, END, IMAGE, BEFORE, AFTER)

CHAT_TEMPLATE = """\
{%- set state = namespace(images=0, line='') -%}
{%- for message in messages if message.role == 'user' -%}
  {%- if message.content is string -%}
    {%- for line in message.content.split('\\n') if line.strip() -%}{%- set state.line = line.strip() -%}{%- endfor -%}
  {%- else -%}
    {%- for part in message.content -%}
      {%- if part.type == 'text' -%}
        {%- for line in part.text.split('\\n') if line.strip() -%}{%- set state.line = line.strip() -%}{%- endfor -%}
      {%- else -%}
        {{- '<initial>' if state.images % 2 == 0 else '<goal>' -}}{{- '<image>' -}}
        {%- set state.images = state.images + 1 -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{{- state.line + '\\n' -}}
"""
"""Renders the pictures, taken as initial and goal frame in turn, and the last line of text; nothing else."""


def train_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> Tokenizer:
    """Byte-level BPE without pre-splitting at spaces, so that whole phrases of ``texts`` become tokens.

    Any text can be encoded: all 256 bytes are in the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Lines, clauses and colours stand alone: what depends on the picture is a token of its own.
            pre_tokenizers.Split("\n", "merged_with_previous"),
            pre_tokenizers.Split(Regex(": |[,;] (?=a )"), "merged_with_previous"),
            pre_tokenizers.Split(Regex(f" ({'|'.join(COLOURS)})(?= )"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def token(tokenizer: Tokenizer, text: str) -> int:
    """Id of a special token."""
    found = tokenizer.token_to_id(text)
    assert found is not None, f"{text} is not in this tokenizer"
    return found


def build_processor(tokenizer: Tokenizer) -> Any:
    """Frames are never rescaled: they are padded with black to the canvas, and larger ones are refused."""
    image_processor = SiglipImageProcessorPil(
        do_resize=False,
        do_pad=True,
        pad_size={"height": CANVAS, "width": CANVAS},
        size={"height": CANVAS, "width": CANVAS},
        image_mean=[0.0, 0.0, 0.0],
        image_std=[0.5, 0.5, 0.5],
    )
    fast = hub.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, BEFORE, AFTER],
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    return hub.LlavaProcessor(
        image_processor=image_processor,
        tokenizer=fast,
        patch_size=PATCH * MERGE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )


def build_model(tokenizer: Tokenizer) -> Any:
    """A fresh, random model for ``tokenizer``."""
    vision = hub.SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=CANVAS,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = hub.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=token(tokenizer, PAD),
        eos_token_id=token(tokenizer, END),
        bos_token_id=None,
    )
    config = hub.AyaVisionConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        downsample_factor=MERGE,
        image_token_index=token(tokenizer, IMAGE),
        image_token_id=token(tokenizer, IMAGE),
        alignment_intermediate_size=512,
        tie_word_embeddings=True,
    )
    model = hub.AyaVisionForConditionalGeneration(config)
    model.generation_config = hub.GenerationConfig(
        pad_token_id=token(tokenizer, PAD), eos_token_id=token(tokenizer, END), max_new_tokens=512
    )
    return model
