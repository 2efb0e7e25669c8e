"""Which of a model's parameters are trained."""

import warnings

import torch
from transformers import PreTrainedModel


def train_last_layers(model: PreTrainedModel, count: int) -> None:
    """Let only the last layers of a Llama-type model be trained; a ValueError if it has not as many."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None:
        raise ValueError(f"{type(model).__name__} has no model.layers, as Llama's kind has: train it all.")
    if count not in range(1, len(layers) + 1):
        raise ValueError(f"Of the model's layers the last 1 to {len(layers)} can be trained, not {count!r}.")
    model.requires_grad_(False)
    layers[-int(count) :].requires_grad_(True)


def add_adapters(model: PreTrainedModel, rank: int) -> torch.nn.Module:
    """Put LoRA adapters of scale 2 beside every linear layer but the output layer; they alone are trained.

    They are in float32, also beside weights in 16 bits. A rank below 1, or a model that has adapters, is a
    ValueError.
    """
    if hasattr(model, "peft_config"):
        raise ValueError("The model has adapters already: train these, or load the model anew.")
    if rank < 1 or rank % 1:
        raise ValueError(f"The rank of adapters must be a whole number of at least 1, not {rank}.")
    from peft import LoraConfig, get_peft_model  # costs a second, and few need it

    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers 5 for something by its old name
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, settings)


def check_trainable(model: PreTrainedModel) -> None:
    """Raise a ValueError if no parameter is to be trained, or one that is in 16 bits."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("No parameter of the model is to be trained: each has requires_grad=False.")
    for name, parameter in trained.items():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"{name} is in {str(parameter.dtype)[6:]}, too coarse for the small steps of training. Load "
                "the model with dtype=torch.float32; for speed on a GPU add bf16=True here."
            )
