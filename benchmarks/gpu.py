"""What the course says, checked on a GPU: exactness, speed, memory, resuming, the auditor.

``make gpu`` runs it (some five minutes on one card of a data centre). It fetches nothing: without the shipped
model in the cache it takes a Llama of the same size with random weights. Each section prints a table as it
goes; one that breaks does not stop the others. The exit code is 1 if a check fails. ``--dry-run`` takes tiny
sizes, and the CPU if there is no card.
"""

import argparse
import copy
import gc
import importlib.util
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import speed
import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorWithFlattening, PreTrainedModel
from transformers.trainer_callback import PrinterCallback

from batchaudit import audit
from chattune import add_adapters, fine_tune, prepare
from tinylib import fetch, models
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.generate import generate, generate_alone
from tinylib.labels import IGNORE_INDEX, shift
from tinylib.padding import pad

LLAMA = {"bos_token_id": 1, "eos_token_id": 2}  # no pad: its embedding would be zero, and never train
SMOLLM2 = LLAMA | {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}  # fmt: skip
TINYLLAMA = LLAMA | {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}  # fmt: skip
TINY = LLAMA | {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        small: The configuration that stands in for the shipped model; None for the shipped one itself.
        large: The one that gets adapters.
        rows: Chats whose logits are compared.
        new_tokens: Of each of the answers that are compared.
        chats_a_step: Of a training whose speed is measured.
        steps: Of such a training, after `WARM_UP` more.
        row_lengths: Tokens of a packed row that the large model is trained on; the first is lesson 08's.
        matrix: The side of the matrices whose product is the card's peak.
    """

    small: dict[str, Any] | None
    large: dict[str, Any]
    rows: int
    new_tokens: int
    chats_a_step: int
    steps: int
    row_lengths: tuple[int, ...]
    matrix: int


CARD = Sizes(None, TINYLLAMA, 8, 24, 64, 8, (512, 4096), 8192)
DRY = Sizes(TINY, {**TINY, "tie_word_embeddings": False}, 3, 4, 2, 1, (512,), 128)
WARM_UP = 2  # steps whose time is not counted
SHORT = 170  # tokens of a chat, at most, where a row is to hold a fixed number of them

IN_FLOAT32 = 1e-3  # of the logits' spread: rounding stays far below, what is seen of a pad far above
# Two ways to compute the same are each about as far from the exact logits as one row alone in 16 bits is; and
# the largest of millions of differences wobbles.
IN_16_BITS = 3
ROUNDING = 2e-4  # of losses and weights of a resumed training: lesson 08's
MEMORY = 0.2  # how far lesson 08's formula may be off


@dataclass(frozen=True)
class Line:
    """A line of a table: what was measured, and what it must be, if that is a check."""

    what: str
    measured: str
    expected: str = ""
    ok: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "ok", False: "**FAILED**"}[self.ok]
        return f"| {self.what} | {self.measured} | {self.expected} | {verdict} |"


def at_most(what: str, value: float, limit: float) -> Line:
    """Check that a value is no larger than it may be."""
    return Line(what, f"{value:.2g}", f"at most {limit:.2g}", value <= limit)


def main() -> None:
    """Run all sections; end with the failures, and the exit code 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes; on the CPU if there is no card")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections")
    args = parser.parse_args()
    device = torch.device(models.best_device())
    if device.type != "cuda" and not args.dry_run:
        sys.exit(f"There is no CUDA card to measure (the device is {device}). --dry-run needs none.")
    torch.set_float32_matmul_precision("highest")  # no TF32
    sizes = DRY if args.dry_run else CARD
    print(f"{name_of(device)}, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"model: {base_model(sizes, device)[2]}")
    failures = []
    for name in args.only or SECTIONS:
        failures += run(name, sizes, device)
    print("\n" + ("\n".join(["FAILED:", *failures]) if failures else "All checks hold."))
    sys.exit(bool(failures))


def run(name: str, sizes: Sizes, device: torch.device) -> list[str]:
    """Print a section's table, line by line; return what failed."""
    section, begin, failures = SECTIONS[name], time.perf_counter(), []
    print(
        "", section.__doc__.splitlines()[0], "", "| | measured | expected | |", "|---|---|---|---|", sep="\n"
    )
    try:
        for line in section(sizes, device):
            print(line, flush=True)
            if line.ok is False:
                failures.append(f"{name}: {line.what}: {line.measured}, expected {line.expected}")
    except Exception as error:  # the other sections are worth as much
        failures.append(f"{name} broke off: {type(error).__name__}: {error!s:.300}")
        print("\n" + "".join(traceback.format_exception(error, limit=-4)), flush=True)
    print(f"\n({name}: {time.perf_counter() - begin:.0f} s)", flush=True)
    emptied(device)
    return failures


def name_of(device: torch.device) -> str:
    """Return the card's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (dry run)"


def emptied(device: torch.device) -> None:
    """Give memory back, and begin to measure its peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Return the most bytes that tensors have held on the card since `emptied`; NaN on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else float("nan")


def random_llama(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Make a Llama with random weights, always the same ones."""
    # Each layer's outputs are as large as its inputs, so that attention is far from uniform.
    config = AutoConfig.for_model("llama", initializer_range=config["hidden_size"] ** -0.5, **config)
    torch.manual_seed(0)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def plain_tokenizer() -> Any:
    """Make TinyLlama's kind of tokenizer with a small vocabulary: that of the tests."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from tiny_models import make_tokenizer

    return make_tokenizer()


def base_model(sizes: Sizes, device: torch.device) -> tuple[PreTrainedModel, Any, str]:
    """Load the shipped model in float32 if it is at hand, else make one of its size; tell which."""
    if sizes.small is None and fetch.cached_folder().is_dir():
        return *models.load("smollm2", device=device, dtype=torch.float32), "the shipped one"
    config = sizes.small or SMOLLM2
    return random_llama(config, device, torch.float32), plain_tokenizer(), "Llama with random weights"


def exactness(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """Is a batch what each row is alone? The largest difference of any logit."""
    yield from _exactness(sizes, device, "sdpa")
    model, tokenizer, _ = base_model(sizes, device)
    prompts = [row[: 16 + 5 * i] for i, row in enumerate(_rows(tokenizer, sizes))]
    for kind, one in (("float32", model), ("bfloat16", _in_bfloat16(model))):
        together = generate(one, prompts, tokenizer.pad_token_id, sizes.new_tokens)
        alone = generate_alone(one, prompts, sizes.new_tokens)
        equal = sum(a == b for a, b in zip(together, alone))
        exact = kind == "float32"
        expected = f"{len(prompts)}" if exact else "any: in 16 bits a close choice falls either way"
        what = f"answers, together = one by one, {kind}"
        ok = equal == len(prompts) if exact else None
        yield Line(what, f"{equal} of {len(prompts)}", expected, ok)


def other_attention(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """The same with the other kinds of attention that are there, against rows alone with sdpa."""
    there = {"flex_attention": device.type == "cuda" and importlib.util.find_spec("triton")}
    there["flash_attention_2"] = device.type == "cuda" and transformers.utils.is_flash_attn_2_available()
    for attention, found in there.items():
        if found:
            yield from _exactness(sizes, device, attention)
        else:
            yield Line(attention, "not here")


@torch.no_grad()
def _exactness(sizes: Sizes, device: torch.device, attention: str) -> Iterator[Line]:
    model, tokenizer, _ = base_model(sizes, device)
    rows, pad_id = _rows(tokenizer, sizes), tokenizer.pad_token_id

    def logits(**batch: torch.Tensor) -> torch.Tensor:
        on_device = {name: values.to(device) for name, values in batch.items()}
        return one(**on_device, use_cache=False).logits.float()

    exact, spread = None, None
    for one in (model, _in_bfloat16(model)):
        kind = str(one.dtype).removeprefix("torch.")
        alone = [logits(input_ids=torch.tensor([row]))[0] for row in rows]
        if exact is None:
            exact, spread = alone, float(torch.cat(alone).std())
            allowed = IN_FLOAT32 * spread
            yield Line("the logits' spread", f"{spread:.2g}")
        else:
            off = _apart(alone, exact)
            allowed = IN_16_BITS * off
            yield Line("alone, bfloat16 - float32: what rounding does", f"{off:.2g}")
        if attention.startswith("flash") and one is model:
            continue  # it computes in 16 bits only
        one.set_attn_implementation(attention)
        batch = pad(rows, pad_id, side="left")
        padded = [values[-len(row) :] for values, row in zip(logits(**batch), rows)]
        unmasked = [values[-len(row) :] for values, row in zip(logits(input_ids=batch["input_ids"]), rows)]
        examples = [{"input_ids": row, "labels": row} for row in rows]
        packed = PackedCollator(pad_id, max_length=sum(map(len, rows)))(examples)
        del packed["labels"]
        packed = logits(**packed)[0].split([len(row) for row in rows])
        yield at_most(f"padded = alone, {kind}, {attention}", _apart(padded, alone), allowed)
        yield at_most(f"packed = padded, {kind}, {attention}", _apart(packed, padded), allowed)
        moved = _apart(unmasked, alone)
        what = f"the bug: EOS pads on the left, no mask, {kind}, {attention}"
        yield Line(what, f"{moved:.2g}", f"more than {allowed:.2g}", moved > allowed)


def _rows(tokenizer: Any, sizes: Sizes) -> list[list[int]]:
    return prepare(tokenizer, speed.chats_of("skewed", sizes.rows))["input_ids"][:]


def _in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model with its weights in bfloat16; its table of rotations stays, as when it is loaded so."""
    half = copy.deepcopy(model)
    for weight in half.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    return half


def _apart(some: Any, others: Any) -> float:
    """Return the largest difference of any number; NaN if one of them is NaN, which Python's max may hide."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(some, others, strict=True)]).max())


def the_auditor(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """What does an audit find, and what does it change?"""
    config = {**(sizes.small or SMOLLM2), "num_hidden_layers": 4, "attention_dropout": 0.1}
    model, tokenizer = random_llama(config, device, torch.float32), plain_tokenizer()
    model.train().model.layers[0].eval()
    examples = prepare(tokenizer, speed.chats_of("shipped", 4)).to_list()
    right = PaddedCollator(tokenizer.pad_token_id, side="left")(examples)
    right = {name: values.to(device) for name, values in right.items()}
    seen = {**right, "attention_mask": torch.ones_like(right["attention_mask"])}
    missing = {name: values for name, values in right.items() if name != "attention_mask"}
    before = _states(model, device, right)
    for what, audited, asked, expected in [
        ("a right batch", right, model, []),
        ("pads shown by the mask", seen, model, ["mask.shows_pads"]),
        ("no mask", missing, model, ["mask.missing"]),
        ("no mask, the model as a function", missing, lambda **batch: model(**batch), ["mask.missing"]),
    ]:
        codes = audit(audited, tokenizer=tokenizer, model=asked).codes
        yield Line(f"found in: {what}", str(codes), str(expected), codes == expected)
    for (name, was), now in zip(before.items(), _states(model, device, right).values()):
        yield Line(f"{name}, before and after", "equal" if was == now else "differ", "equal", was == now)


def _states(model: torch.nn.Module, device: torch.device, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return everything that an audit must leave as it was, as plain values."""
    _, keys, *rest = np.random.get_state()
    return {
        "random state of Python": random.getstate(),
        "random state of numpy": (keys.tolist(), *rest),
        "random state of torch on the CPU": torch.get_rng_state().tolist(),
        "random state of the card": torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else 0,
        "modes": [module.training for module in model.modules()],
        "gradients": [weight.grad is None for weight in model.parameters()],
        "the batch": {name: values.tolist() for name, values in batch.items()},
    }


def resuming(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """Is a training that was interrupted and resumed the same as one that was not? In float32."""
    tokenizer, chats = plain_tokenizer(), speed.chats_of("shipped", 32)
    config = {**(sizes.small or SMOLLM2), "num_hidden_layers": 2}
    options = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2}

    def one(folder: Path, **more: Any) -> tuple[list[float], list[torch.Tensor]]:
        model = random_llama(config, device, torch.float32)
        losses = fine_tune(model, tokenizer, chats, folder, save_total_limit=1, **options, **more)
        return losses, [weight.detach() for weight in model.parameters()]

    with tempfile.TemporaryDirectory() as folder:
        losses, weights = one(Path(folder) / "undisturbed")
        _, again = one(Path(folder) / "again")
        with suppress(_Interrupted), after_steps(5, _Interrupted):
            one(Path(folder) / "resumed")
        resumed_losses, resumed = one(Path(folder) / "resumed", resume=True)
    yield Line("two undisturbed trainings, weights apart", f"{_apart(again, weights):.2g}")
    apart = _apart([torch.tensor(resumed_losses)], [torch.tensor(losses)])
    yield at_most("interrupted in step 5 of 8, resumed: losses apart", apart, ROUNDING)
    yield at_most("weights apart", _apart(resumed, weights), ROUNDING)
    yield Line("losses", f"{losses[0]:.3f} to {losses[-1]:.3f}", "falling", losses[-1] < losses[0])


class _Interrupted(Exception):
    """Stands for whatever ends a training in the middle."""


@contextmanager
def after_steps(count: int, error: type[Exception]) -> Iterator[None]:
    """Raise an error after so many optimizer steps."""
    steps = []

    def step(*_: Any) -> None:
        steps.append(1)
        if len(steps) == count:
            raise error

    handle = register_optimizer_step_post_hook(step)
    try:
        yield
    finally:
        handle.remove()


class Watch:
    """Counts tokens, seconds and memory of a training after its warm-up, whose batches are noted in it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.batches, self.ends = device, [], []
        emptied(device)

    def _step(self, *_: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())

    def __enter__(self) -> "Watch":
        self.handle = register_optimizer_step_post_hook(self._step)
        return self

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()
        self.gigabytes = peak_memory(self.device) / 1e9

    @property
    def tokens_a_second(self) -> float:
        """The tokens of the batches' rows up to their last label, in a second."""
        timed = self.batches[WARM_UP : len(self.ends)]
        return sum(map(speed.real_tokens, timed)) / (self.ends[-1] - self.ends[WARM_UP - 1])


HALF = {"bf16": True, "lr_scheduler_type": "constant"}
TRAINER_PACKED, OURS_LONG = "Trainer, packed", "chattune, rows of 2048"


def training(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """How fast is `fine_tune` beside the others? All weights, in bf16=True; skewed lengths."""
    names = [speed.OURS, OURS_LONG, speed.PADDED, TRAINER_PACKED]
    if importlib.util.find_spec("trl"):
        names += [speed.TRL_FREE, speed.TRL_BFD]
    else:
        yield Line("TRL", "not here")
    count = sizes.chats_a_step * (sizes.steps + WARM_UP)
    *chats, _ = speed.chats_of("skewed", count + 1)
    held_out = speed.chats_of("shipped", speed.HELD_OUT)
    yield Line("chats", f"{count}, {sizes.chats_a_step} a step; {WARM_UP} steps are not timed")
    losses = {}
    for name in names:
        model, tokenizer, _ = base_model(sizes, device)
        try:
            watch = _trained(name, model, tokenizer, chats, sizes)
        except torch.cuda.OutOfMemoryError:
            yield Line(name, "does not fit on this card")
            continue
        losses[name] = speed.held_out_loss(model, tokenizer, held_out)
        what = f"{watch.tokens_a_second:,.0f} useful tokens/s, {watch.gigabytes:.1f} GB, "
        yield Line(name, what + f"held-out loss {losses[name]:.3f}")
        del model, watch
    if speed.PADDED in losses:
        apart = abs(losses[speed.OURS] - losses[speed.PADDED])
        yield at_most("held-out loss, chattune and the padded Trainer apart", apart, 0.05)


def _trained(name: str, model: Any, tokenizer: Any, chats: list[dict[str, Any]], sizes: Sizes) -> Watch:
    """Train one epoch with one contender."""
    settings = HALF | {"per_device_train_batch_size": sizes.chats_a_step, "weight_decay": 0.0}
    watch = Watch(model.device)
    if name in (speed.OURS, OURS_LONG):
        longest = {"max_length": 2048} if name == OURS_LONG else {}
        collate = speed.counting(PackedCollator(tokenizer.pad_token_id, **longest), watch.batches)
        with watch:
            fine_tune(model, tokenizer, chats, collator=collate, **settings)
        return watch
    with tempfile.TemporaryDirectory() as folder:
        settings |= {
            "output_dir": folder, "learning_rate": 2e-4, "num_train_epochs": 1, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "use_cpu": model.device.type == "cpu",
        }  # fmt: skip
        usual = speed.PADDED if name == TRAINER_PACKED else name
        trainer = speed.others_trainer(usual, model, tokenizer, prepare(tokenizer, chats), settings)
        if name == TRAINER_PACKED:
            trainer.data_collator = DataCollatorWithFlattening()
        trainer.data_collator = speed.counting(trainer.data_collator, watch.batches)
        trainer.remove_callback(PrinterCallback)
        with watch:
            trainer.train()
    return watch


def adapters(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """LoRA of rank 16 on a model of TinyLlama-1.1B's shape, frozen weights in bfloat16, random."""
    peak = matrix_peak(sizes.matrix, device)
    yield Line("a large matrix product in bfloat16", f"{peak / 1e12:.3g} TFLOP/s")
    tokenizer = plain_tokenizer()
    chats = speed.chats_of("shipped", 2 * max(sizes.row_lengths) // SHORT * (sizes.steps + WARM_UP))
    lengths = map(len, prepare(tokenizer, chats)["input_ids"])
    chats = [chat for chat, tokens in zip(chats, lengths) if tokens <= SHORT]
    for length in sizes.row_lengths:
        a_row = length // SHORT
        settings = HALF | {"per_device_train_batch_size": a_row}
        collate = PackedCollator(tokenizer.pad_token_id, max_length=length)
        model = add_adapters(random_llama(sizes.large, device, torch.bfloat16), rank=16)
        with Watch(device) as watch:
            some, noted = chats[: a_row * (sizes.steps + WARM_UP)], speed.counting(collate, watch.batches)
            fine_tune(model, tokenizer, some, collator=noted, **settings)
        rows = f"a row of up to {length} tokens a step"
        measured, formula = watch.gigabytes, _by_the_formula(model, watch.batches, device) / 1e9
        is_lessons = device.type == "cuda" and sizes is CARD and length == sizes.row_lengths[0]
        expected = f"{formula:.2f} GB by lesson 08's formula" + (", within 20 %" if is_lessons else "")
        ok = abs(measured / formula - 1) < MEMORY if is_lessons else None
        yield Line(f"{rows}: peak memory", f"{measured:.2f} GB", expected, ok)
        with Watch(device) as counted, FlopCounterMode(display=False) as flops:
            noted = speed.counting(collate, counted.batches)
            fine_tune(model, tokenizer, chats[:a_row], collator=noted, **settings)
        a_token = flops.get_total_flops() / speed.real_tokens(counted.batches[0])
        share = watch.tokens_a_second * a_token / peak
        fast = f"{watch.tokens_a_second:,.0f} tokens/s"
        yield Line(f"{rows}: speed", f"{fast}, {share:.0%} of that product's operations a second")
        del model, watch, counted


def matrix_peak(side: int, device: torch.device) -> float:
    """Measure a large matrix product in bfloat16, in operations a second: the mean of ten."""
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for runs in (3, 10):
        wait()
        begin = time.perf_counter()
        for _ in range(runs):
            a @ b
        wait()
    return runs * 2 * side**3 / (time.perf_counter() - begin)


def _by_the_formula(model: Any, batches: list[dict[str, torch.Tensor]], device: torch.device) -> float:
    """Add up, as lesson 08 does, the bytes of weights, gradients, averages and what is kept for backward."""
    trained = [weight.numel() for weight in model.parameters() if weight.requires_grad]
    weights = sum(weight.nbytes for weight in model.parameters())
    on_device = [{name: values.to(device) for name, values in batch.items()} for batch in batches]
    kept = max(_kept_for_backward(model, batch) for batch in on_device)
    return weights + (4 + 8) * sum(trained) + kept


def _kept_for_backward(model: Any, batch: dict[str, torch.Tensor]) -> int:
    """Count the bytes that a forward pass on a packed batch puts aside, as lesson 08 does."""
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> None:
        # Without its graph, which would hold itself through the tensor, for as long as the process lives.
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()

    labels = shift(batch.pop("labels"))
    labelled = (labels != IGNORE_INDEX).any(dim=0)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda nothing: nothing)  # there is no backward
    with torch.autocast(model.device.type, torch.bfloat16), hooks:
        logits = model(**batch, use_cache=False, logits_to_keep=labelled).logits
        cross_entropy(logits.flatten(0, 1).float(), labels[:, labelled].flatten(), ignore_index=IGNORE_INDEX)
    return sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in known)


SECTIONS: dict[str, Callable[[Sizes, torch.device], Iterator[Line]]] = {
    "exactness": exactness,
    "auditor": the_auditor,
    "resuming": resuming,
    "adapters": adapters,
    "training": training,
    "other-attention": other_attention,
}


if __name__ == "__main__":
    main()
