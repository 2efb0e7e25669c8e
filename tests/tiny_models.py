"""Small model folders for tests, made on the spot: TinyLlama-1.1B-Chat's configuration scaled down.

``python tests/tiny_models.py FOLDER`` writes one, to run the lessons on something that is not the
shipped model: ``TINYLIB_MODEL=FOLDER pytest --nbval-lax notebooks``.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# The template in TinyLlama-1.1B-Chat-v1.0's tokenizer_config.json (the Zephyr format).
TINYLLAMA_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
TRAINING_TEXT = [
    "What is the capital of France? The capital of France is Paris.",
    "Name three fruits. Bananas, oranges and grapes.",
    "How many days are there in a week? There are seven days in a week.",
    "<|user|>\nWhich animal says meow?\n<|assistant|>\nThe cat says meow.\n<|system|>\nYou are helpful.",
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build a Llama-type tokenizer (SentencePiece-like BPE with byte fallback), pad = ``</s>``."""
    special = ["<unk>", "<s>", "</s>"]
    learner = Tokenizer(BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    learner.train_from_iterator(TRAINING_TEXT, trainers.BpeTrainer(vocab_size=256, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    # As in Llama's vocabulary: special tokens, the 256 bytes, then what was learned.
    tokens = (
        special + [f"<0x{i:02X}>" for i in range(256)] + sorted(learned["vocab"], key=learned["vocab"].get)
    )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        padding_side="right",
        model_max_length=2048,
        chat_template=TINYLLAMA_TEMPLATE,
    )


def make_tinyllama(folder: Path) -> Path:
    """Write a TinyLlama-shaped model with random weights and its tokenizer into ``folder``.

    As in TinyLlama-1.1B-Chat, the tokenizer pads with ``</s>`` (2) while the generation config's
    ``pad_token_id`` is 0.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        # Ten times the usual spread: attention is then far from uniform, as in a trained model.
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.pad_token_id = 0
    model.generation_config.max_length = 2048
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_tinyllama(Path(sys.argv[1])))
