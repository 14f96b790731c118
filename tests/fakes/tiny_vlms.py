"""Tiny random vision-language models of three architectures, saved as the folders that transformers loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
)

TEXT = "Task: name the sub-tasks. Task: write the program for sub-task 1 of 2: key picked up. 0123456789 abc def"

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(special: list[str], eos: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a line of text, padding on the right as many checkpoints do."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", *special], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token=eos, padding_side="right")


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: patches of any resolution, rotary positions in three dimensions."""
    words = tokenizer(
        ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
        eos="<|im_end|>",
    )
    ids = words.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": ids("<|im_start|>"), "eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<pad>"),
        },
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    pictures = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    )
    return _save(Qwen2VLForConditionalGeneration, config, words, QWEN_TEMPLATE, folder, pictures)


def idefics3(folder: Path) -> Path:
    """Idefics3, the architecture of the first SmolVLM: images split into tiles, pixel shuffle."""
    words = tokenizer(
        ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"], eos="<end_of_utterance>"
    )
    ids = words.convert_tokens_to_ids
    config = Idefics3Config(
        text_config={
            "model_type": "llama", "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "bos_token_id": ids("<pad>"), "eos_token_id": ids("<end_of_utterance>"), "pad_token_id": ids("<pad>"),
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        image_token_id=ids("<image>"), pad_token_id=ids("<pad>"), scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(pictures, words, image_seq_len=4)
    return _save(Idefics3ForConditionalGeneration, config, words, PLAIN_TEMPLATE, folder, processor)


def llava(folder: Path) -> Path:
    """LLaVA, the family of the embedded model: a SigLIP tower of one size before a Llama decoder."""
    words = tokenizer(["<image>", "<end_of_utterance>"], eos="<end_of_utterance>")
    ids = words.convert_tokens_to_ids
    config = LlavaConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        text_config={
            "model_type": "llama", "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "bos_token_id": ids("<pad>"), "eos_token_id": ids("<end_of_utterance>"), "pad_token_id": ids("<pad>"),
        },
        image_token_index=ids("<image>"), image_seq_length=16,
        vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    pictures = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="full", num_additional_image_tokens=0,
    )  # fmt: skip
    return _save(LlavaForConditionalGeneration, config, words, PLAIN_TEMPLATE, folder, processor)


ARCHITECTURES: dict[str, Callable[[Path], Path]] = {"qwen2_vl": qwen2_vl, "idefics3": idefics3, "llava": llava}


def _save(
    architecture: Any, config: Any, words: PreTrainedTokenizerFast, template: str, folder: Path, processor: Any
) -> Path:
    torch.manual_seed(0)
    model = architecture(config)
    model.generation_config.pad_token_id = words.pad_token_id
    model.generation_config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)
    words.chat_template = template
    processor.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
