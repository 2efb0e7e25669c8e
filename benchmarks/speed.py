"""How fast `chattune` trains and `tinylib` answers, beside transformers' Trainer and TRL's SFTTrainer.

``make bench`` runs it (half an hour on two cores). Every run is a process of its own; the contenders take
turns, and a ratio compares runs of the same round, so that a machine whose speed drifts does not decide.
Same model, rows, labels, order, precision, optimizer and rows per step; the loss on held-out rows tells that
they learned the same.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from chattune import fine_tune, prepare
from chattune.attention import attending_by_sample
from chattune.trainer import PackedTrainer
from tinylib import models
from tinylib.chat import prompt_rows
from tinylib.collate import PackedCollator, PaddedCollator
from tinylib.data import load_chats
from tinylib.generate import generate as answer_together
from tinylib.generate import generate_alone
from tinylib.labels import IGNORE_INDEX, shifting_loss

HERE = Path(__file__).parent
ROWS, HELD_OUT, ROWS_A_STEP = 32, 8, 8
NEW_TOKENS = 48
OURS, OURS_BF16, PADDED = "chattune", "chattune, bfloat16", "Trainer, padded"
TRL, TRL_FREE, TRL_BFD = "SFTTrainer, default", "SFTTrainer, padding-free", "SFTTrainer, bfd packing"
DATA = ("skewed", "shipped")
HOUSE = """You are the assistant of a small hotel by the sea. Be brief and friendly. Promise nothing that the
house has not. If somebody asks for a room, ask for the days and for the number of guests. Prices are in
euros, breakfast is from seven to ten. Answer in one sentence.""".replace("\n", " ")
CONTENDERS = [OURS, PADDED, TRL, TRL_FREE, TRL_BFD]


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs (default: 3)")
    parser.add_argument("--profile", action="store_true", help="only: where a training step's time goes")
    parser.add_argument("--growth", action="store_true", help="only: how chats are prepared, few and many")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)  # what a process of ours does
    args = parser.parse_args()
    if args.run:
        run = {"train": train, "generate": generate, "work": work, "growth": growth}[args.run[0]]
        print(json.dumps(run(*args.run[1:])))
    elif args.profile:
        print("\n".join([profile(), products_line(), *beginnings_lines()]))
    elif args.growth:
        print("\n".join(growth_table()))
    else:
        report(args.rounds)


def report(rounds: int) -> None:
    """Run everything; print the tables, draw the figure, and keep each run's figures beside it."""
    results: dict[str, Any] = {
        data: [{name: in_a_process("train", name, data) for name in CONTENDERS} for _ in range(rounds)]
        for data in DATA
    }
    if has_fast_bfloat16():
        results["bfloat16"] = [in_both_precisions() for _ in range(rounds)]
    results["answers"] = [in_a_process("generate") for _ in range(rounds)]
    results["work"] = [in_a_process("work") for _ in range(rounds)]
    (HERE / "speed.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for data in DATA:
        print("\n".join(["", f"Training, {data} lengths", "", *training_table(results[data])]))
    if "bfloat16" in results:
        print(f"\n{bfloat16_line(results['bfloat16'])}")
    print(f"\nAnswering\n\n{answer_line(results['answers'])}\n\n{work_line(results['work'])}")
    print("\n".join(["", "Preparing chats", "", *growth_table()]))
    figure(results["skewed"], HERE / "speed.png")


def has_fast_bfloat16() -> bool:
    """Tell if the CPU has matrix products in bfloat16; without them it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def in_both_precisions() -> dict[str, dict[str, Any]]:
    """Train with `fine_tune` in float32 and in bfloat16, one after the other."""
    return {name: in_a_process("train", name, "skewed") for name in (OURS, OURS_BF16)}


def training_table(results: list[dict[str, dict[str, Any]]]) -> list[str]:
    """Format the medians over the rounds; a ratio is ours over the other's, of the same round."""
    lines = [
        "| | real tokens/s | supervised tokens/s | chattune is faster by | peak memory | held-out loss |",
        "|---|---|---|---|---|---|",
    ]
    for name in CONTENDERS:
        runs = [result[name] for result in results]
        real = median(run["real"] / run["seconds"] for run in runs)
        supervised = median(run["supervised"] / run["seconds"] for run in runs)
        memory = median(run["gigabytes"] for run in runs)
        loss = median(run["loss"] for run in runs)
        lines.append(
            f"| {name} | {real:.0f} | {supervised:.0f} | {median(speedups(results, name)):.2f} | "
            f"{memory:.1f} GB | {loss:.3f} |"
        )
    return lines


def speedups(results: list[dict[str, dict[str, Any]]], name: str) -> list[float]:
    """Divide our real tokens a second by another's, round by round."""
    return [
        (result[OURS]["real"] / result[OURS]["seconds"]) / (result[name]["real"] / result[name]["seconds"])
        for result in results
    ]


def bfloat16_line(results: list[dict[str, dict[str, Any]]]) -> str:
    """Say how much faster bfloat16 is, and what it does to the loss."""
    single, half = ([result[name] for result in results] for name in (OURS, OURS_BF16))
    factor = median(a["seconds"] / b["seconds"] for a, b in zip(single, half))
    return (
        f"In bfloat16 (`bf16=True`) chattune is {factor:.2f} times as fast as in float32; held-out loss "
        f"{median(run['loss'] for run in half):.3f} against {median(run['loss'] for run in single):.3f}."
    )


def answer_line(runs: list[dict[str, Any]]) -> str:
    """Say how much longer one by one takes than together, and whether the answers are equal."""
    shortest, longest = runs[0]["lengths"]
    return (
        f"16 prompts of {shortest} to {longest} tokens, {runs[0]['tokens']} new tokens: "
        f"together {median(run['together'] for run in runs):.1f} s, "
        f"one by one {median(run['alone'] for run in runs):.1f} s, "
        f"{median(run['alone'] / run['together'] for run in runs):.1f} times as long. "
        f"{min(run['equal'] for run in runs)} of 16 answers are equal, token for token."
    )


def work_line(runs: list[dict[str, float]]) -> str:
    """Say how close a training step comes to the speed of a large matrix product."""
    return (
        f"A training step of chattune computes {median(run['gflops'] for run in runs):.0f} GFLOP/s, a large "
        f"matrix product {median(run['peak'] for run in runs):.0f}; the share is "
        f"{median(run['gflops'] / run['peak'] for run in runs):.0%} (each the median of its runs)."
    )


def figure(results: list[dict[str, dict[str, Any]]], path: Path) -> None:
    """Draw speed and memory of the contenders, relative to the padded Trainer."""
    import matplotlib.pyplot as plt

    names = CONTENDERS[::-1]
    padded = speedups(results, PADDED)
    speed = [median(p / n for p, n in zip(padded, speedups(results, name))) for name in names]
    memory = [median(result[name]["gigabytes"] for result in results) for name in names]
    values = {"real tokens a second,\nrelative to the padded Trainer": speed, "peak memory in GB": memory}
    picture, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True, layout="constrained")
    for ax, (label, numbers) in zip(axes, values.items()):
        colors = ["#0072B2" if name == OURS else "#9a9a9a" for name in names]
        bars = ax.barh(names, numbers, color=colors)
        ax.bar_label(bars, fmt="%.1f", padding=3)
        ax.set_xlabel(label)
        ax.margins(x=0.12)
        ax.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=120, facecolor="white")


def in_a_process(*run: str) -> dict[str, Any]:
    """Call one of the functions below in a process of its own, and return its result."""
    print(time.strftime("%H:%M:%S"), *run, file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--run", *run]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(run)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def chats_of(data: str, count: int = ROWS + HELD_OUT) -> list[dict[str, Any]]:
    """Take the shipped chats as they are, or join them into conversations of skewed lengths."""
    source, rng = cycle(load_chats()["messages"]), random.Random(0)
    chats = []
    for _ in range(count):
        messages = list(next(source))
        if data == "skewed":  # most conversations are short, a few are ten times as long
            for _ in range(min(int(rng.lognormvariate(0, 1)), 8)):
                messages += next(source)[1:]
        chats.append({"messages": messages})
    return chats


def train(contender: str, data: str) -> dict[str, Any]:
    """Train one epoch with one contender; count its tokens and seconds after the first step."""
    model, tokenizer = models.load("smollm2", device="cpu", dtype=torch.float32)
    chats = chats_of(data)
    training, held_out = chats[HELD_OUT:], chats[:HELD_OUT]
    batches: list[dict[str, torch.Tensor]] = []
    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    settings = {
        "per_device_train_batch_size": ROWS_A_STEP,
        "learning_rate": 2e-4,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    if contender in (OURS, OURS_BF16):
        collate = counting(PackedCollator(tokenizer.pad_token_id), batches)
        fine_tune(model, tokenizer, training, collator=collate, bf16=contender == OURS_BF16, **settings)
    else:
        with tempfile.TemporaryDirectory() as folder:
            settings["output_dir"] = folder
            trainer = others_trainer(contender, model, tokenizer, prepare(tokenizer, training), settings)
            trainer.data_collator = counting(trainer.data_collator, batches)
            trainer.train()
    timed = batches[1 : len(ends)]
    return {
        "seconds": ends[-1] - ends[0],
        "real": sum(map(real_tokens, timed)),
        "supervised": sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in timed),
        "gigabytes": peak_memory(),
        "loss": held_out_loss(model, tokenizer, held_out),
    }


def counting(collate: Callable, batches: list[dict[str, torch.Tensor]]) -> Callable:
    """Wrap a collator, and note the batches that it makes."""

    def counted(examples: list) -> dict[str, torch.Tensor]:
        batches.append(dict(collate(examples)))
        return batches[-1]

    return counted


def others_trainer(
    contender: str, model: Any, tokenizer: PreTrainedTokenizerBase, examples: Dataset, settings: dict
) -> Trainer:
    """Set up transformers' or TRL's trainer on the very same ids and labels."""
    settings = {"use_cpu": True, "disable_tqdm": True, **settings}
    if contender == PADDED:
        return Trainer(
            model,
            TrainingArguments(**settings),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX),
            train_dataset=examples.map(lambda row: {"attention_mask": [1] * len(row["input_ids"])}),
        )
    from trl import SFTConfig, SFTTrainer

    # TRL recomputes activations by default, which saves memory and costs a third more time: not here.
    settings = {"bf16": False, **settings, "gradient_checkpointing": False, "max_length": None}
    if contender == TRL_FREE:
        settings["padding_free"] = True
    if contender == TRL_BFD:  # one row with as many tokens as the others have in a step
        lengths = [len(row["input_ids"]) for row in examples]
        a_step = sum(lengths) * settings["per_device_train_batch_size"] // len(lengths)
        settings |= {"packing": True, "max_length": max(a_step, *lengths), "per_device_train_batch_size": 1}
    return SFTTrainer(model, SFTConfig(**settings), train_dataset=examples, processing_class=tokenizer)


def real_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Count the tokens up to the last label of each row: the rest is padding."""
    return sum(int((labels != IGNORE_INDEX).nonzero().max()) + 1 for labels in batch["labels"])


@torch.no_grad()
def held_out_loss(model: Any, tokenizer: PreTrainedTokenizerBase, chats: list[dict]) -> float:
    """Return the mean loss over the supervised tokens of chats that were not trained on."""
    batch = PaddedCollator(tokenizer.pad_token_id)(prepare(tokenizer, chats).to_list())
    batch = {name: values.to(model.device) for name, values in batch.items()}
    model.eval()
    return shifting_loss(model(**batch).logits, batch["labels"]).item()


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e9 if sys.platform == "darwin" else 1e6)


THINGS = """rivers, the moon, bread, a violin, winter, honey bees, a lighthouse, chess
clouds, iron, an orchard, the tides, a compass, paper, maps, silk""".replace("\n", ", ").split(", ")


def generate() -> dict[str, Any]:
    """Answer 16 prompts of different lengths together and one by one."""
    model, tokenizer = models.load("smollm2", device="cpu", dtype=torch.float32)
    prompts = [
        f"Explain in detail, step by step, {'and in plain words, ' * (i % 5)}what you know about {thing}."
        for i, thing in enumerate(THINGS)
    ]
    rows = prompt_rows(tokenizer, prompts)
    result: dict[str, Any] = {"lengths": [min(map(len, rows)), max(map(len, rows))]}
    answer_together(model, rows[:2], tokenizer.pad_token_id, 4)  # the first call is slow
    begin = time.perf_counter()
    together = answer_together(model, rows, tokenizer.pad_token_id, NEW_TOKENS)
    result["together"] = time.perf_counter() - begin
    begin = time.perf_counter()
    alone = generate_alone(model, rows, NEW_TOKENS)
    result["alone"] = time.perf_counter() - begin
    return result | {"tokens": sum(map(len, alone)), "equal": sum(a == b for a, b in zip(alone, together))}


def work() -> dict[str, float]:
    """Count the floating-point operations of a step of ours, and time it beside a large matrix product."""
    step = one_step(chats_of("skewed", ROWS_A_STEP))
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return {"gflops": counter.get_total_flops() / min(seconds) / 1e9, "peak": peak()}


def one_step(chats: list[dict[str, Any]], shares_beginnings: bool = True) -> Callable[[], None]:
    """Return what computes loss and gradients of these chats, as `fine_tune` does."""
    model, tokenizer = models.load("smollm2", device="cpu", dtype=torch.float32)
    batch = PackedCollator(tokenizer.pad_token_id)(prepare(tokenizer, chats).to_list())
    count = (batch["labels"] != IGNORE_INDEX).sum()
    with tempfile.TemporaryDirectory() as folder:
        trainer = PackedTrainer(model, TrainingArguments(folder, use_cpu=True, report_to="none"))
    trainer._reads_shared_beginning = shares_beginnings

    def step() -> None:
        with attending_by_sample(model):
            trainer.training_step(model, batch, count)
        model.zero_grad()

    return step


def peak() -> float:
    """Measure the speed of a large float32 matrix product, in GFLOP/s: the best of ten."""
    a, b = torch.randn(2, 2048, 2048)
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(seconds) / 1e9


def growth_table() -> list[str]:
    """Prepare 1,000 to 100,000 chats with ours and with TRL; other programs change CPU seconds less."""
    lines = ["| chats | | chats/s | CPU ms a chat | peak memory |", "|---|---|---|---|---|"]
    for count in (1_000, 10_000, 100_000):
        for who in (OURS, "SFTTrainer"):
            run = in_a_process("growth", who, str(count))
            lines.append(
                f"| {count:,} | {who} | {count / run['seconds']:.0f} | {run['cpu'] / count * 1000:.2f} | "
                f"{run['gigabytes']:.2f} GB |"
            )
    return lines


def growth(who: str, count: str) -> dict[str, float]:
    """Prepare so many chats, each another, as a trainer does before its first step."""
    tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2"))
    source = cycle(load_chats()["messages"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chats.jsonl")
        with file.open("w", encoding="utf-8") as written:
            for i, (*before, question, answer) in zip(range(int(count)), source):
                asked = {**question, "content": f"{question['content']} ({i})"}
                row = {"prompt": [*before, asked], "completion": [answer]}
                written.write(json.dumps(row) + "\n")
        chats = load_chats(str(file))
        begin, cpu = time.perf_counter(), cpu_seconds()
        if who == OURS:
            prepare(tokenizer, chats, 2048, Path(folder))
        else:
            from trl import SFTConfig, SFTTrainer

            few = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
            model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **few))
            settings = SFTConfig(folder, use_cpu=True, bf16=False, report_to="none", max_length=None)
            SFTTrainer(model, settings, train_dataset=chats, processing_class=tokenizer)
        return {
            "seconds": time.perf_counter() - begin,
            "cpu": cpu_seconds() - cpu,
            "gigabytes": peak_memory(),
        }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those that it has started and that are done."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


class Products(TorchDispatchMode):
    """Note the matrix products of what is called within: how often which shapes are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Call it, and note it if it multiplies two matrices (attention's own are within one operation)."""
        if function in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.count[function, *((tuple(a.shape), a.stride()) for a in args)] += 1
        return function(*args, **(kwargs or {}))


def products_line() -> str:
    """Time a step beside its own matrix products alone, in the same shapes: the best of five, in turn."""
    step = one_step(chats_of("skewed", ROWS_A_STEP))
    step()
    with Products() as products:
        step()
    alone = [
        (function, [torch.empty_strided(*shape).normal_() for shape in shapes], times)
        for (function, *shapes), times in products.count.items()
    ]
    steps, multiplied = [], [[] for _ in alone]
    for _ in range(5):
        begin = time.process_time()
        step()
        steps.append(time.process_time() - begin)
        for seconds, (function, matrices, _) in zip(multiplied, alone):
            begin = time.process_time()
            function(*matrices)
            seconds.append(time.process_time() - begin)
    own = sum(min(seconds) * times for seconds, (*_, times) in zip(multiplied, alone))
    return (
        f"Loss and gradients of a step take {min(steps):.2f} CPU seconds, its own matrix products alone "
        f"{own:.2f}: {min(steps) / own:.2f} times as much."
    )


def beginnings_lines() -> list[str]:
    """Time a step whose rows' beginning is computed once, and for each chat: the best of three, in turn."""
    lines = []
    for data in DATA:
        chats = chats_of(data, ROWS_A_STEP)
        long = [{"messages": [{"role": "system", "content": HOUSE}, *chat["messages"][1:]]} for chat in chats]
        for name, rows in ((data, chats), (f"{data}, a long system message", long)):
            steps = {shares: one_step(rows, shares) for shares in (True, False)}
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(4):  # the first is slow
                for shares, step in steps.items():
                    begin = time.process_time()
                    step()
                    seconds[shares].append(time.process_time() - begin)
            once, each = min(seconds[True][1:]), min(seconds[False][1:])
            lines.append(f"{name}: {once:.2f} CPU seconds once, {each:.2f} for each: {once / each:.2f} of it")
    return lines


def profile() -> str:
    """Tell which operations of PyTorch a step of ours spends its time in."""
    step = one_step(chats_of("skewed", ROWS_A_STEP))
    step()
    with torch.profiler.profile() as profiler:
        step()
    return profiler.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50
    )


if __name__ == "__main__":
    main()
