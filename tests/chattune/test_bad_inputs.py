"""Every case of the table: the right result or one clear line, and nothing is lost or half-written."""

import _thread
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from bad_inputs import CHATS, COMMANDS, FILES, PAIR, SETTINGS, lines
from filelock import FileLock, Timeout
from peft import AutoPeftModelForCausalLM
from training_data import CHATS as TRAINED
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.utils import logging

from chattune import add_adapters, fine_tune, prepare, train_last_layers
from chattune.__main__ import main
from chattune.watch import Watch
from tinylib import models
from tinylib.data import load_chats
from tinylib.generate import answer

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
SAVING = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1}


def check(made: Callable[[], Any], expected: int | str) -> None:
    """It makes so many examples, or a ValueError of a line that matches."""
    if isinstance(expected, int):
        assert len(made()) == expected
    else:
        with pytest.raises(ValueError, match=expected) as raised:
            made()
        assert len(str(raised.value)) < 700


@pytest.mark.parametrize(("name", "content", "expected"), FILES.values(), ids=FILES)
def test_a_file(tinyllama: Loaded, tmp_path: Path, name: str, content: bytes, expected: int | str) -> None:
    (tmp_path / name).write_bytes(content)
    check(lambda: prepare(tinyllama[1], load_chats(str(tmp_path / name)), 2048), expected)


@pytest.mark.parametrize(("chats", "expected"), CHATS.values(), ids=CHATS)
def test_chats(tinyllama: Loaded, chats: Any, expected: int | str) -> None:
    check(lambda: prepare(tinyllama[1], chats), expected)


def test_what_is_not_used_is_told_by_who_reads_all_chats(
    tinyllama: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each data set, as a training with held-out chats reads them."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "Hi!", "completion": "Hello.", "id": 7}\n' * 3)
    parts = [load_chats(str(tmp_path / "a.jsonl")) for _ in range(2)]
    assert not caplog.records
    for chats in parts:
        prepare(tinyllama[1], chats)
    told = "These columns of chats are not used: 'id'."
    assert [record.getMessage() for record in caplog.records] == [told] * 2


@pytest.mark.parametrize(("settings", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting(tinyllama: Loaded, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        fine_tune(*tinyllama, TRAINED, **settings)


@pytest.mark.parametrize(("options", "code", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_a_command(
    tinyllama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], options: list[str], code: int, expected: str,
) -> None:  # fmt: skip
    data = tmp_path / "data" / "a.jsonl"
    data.parent.mkdir()
    data.write_bytes(lines(*TRAINED))
    places = {"FILE": data, "FILE/x": data / "x", "FOLDER": data.parent, "MODEL": tinyllama_folder}
    before = sorted(tinyllama_folder.iterdir())
    given = ["--data", data, "--output", tmp_path / "out", "--model", tinyllama_folder]
    given += [places.get(option, option) for option in options]
    monkeypatch.setattr(sys, "argv", ["train", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert (1 if isinstance(ended.value.code, str) else ended.value.code) == code
    assert re.search(expected, told)
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert sorted(tinyllama_folder.iterdir()) == before


@pytest.fixture
def fresh(tinyllama_folder: Path) -> Callable[[], Loaded]:
    return lambda: models.load(tinyllama_folder)


def test_a_diverging_training_keeps_the_last_good_checkpoint(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    model, tokenizer = fresh()
    with pytest.raises(FloatingPointError, match="in step 2 the loss or a gradient") as raised:
        fine_tune(model, tokenizer, TRAINED, tmp_path, learning_rate=1000, **SAVING)
    assert not hasattr(raised.value, "__notes__")  # going on from there, it would diverge again
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("clipped_to", [1.0, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_number_of_one_gradient_ends_a_training_before_its_step(
    fresh: Callable[[], Loaded], value: float, clipped_to: float
) -> None:
    model, tokenizer = fresh()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    at = torch.zeros_like(weight := model.model.layers[1].mlp.up_proj.weight)
    at[3, 5] = value
    weight.register_hook(lambda gradient: gradient + at)
    with pytest.raises(FloatingPointError, match="in step 1 the loss or a gradient"):
        fine_tune(model, tokenizer, TRAINED, max_grad_norm=clipped_to)
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_weights_that_overflow_in_an_epochs_last_step_are_not_saved(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    epochs = {"per_device_train_batch_size": len(TRAINED), "num_train_epochs": 2, "save_strategy": "epoch"}
    with pytest.raises(FloatingPointError, match=r"in step 1 model\.embed_tokens\.weight"):
        fine_tune(*fresh(), TRAINED, tmp_path, learning_rate=1e39, **epochs)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_weights_that_overflow_in_the_last_step_are_not_saved(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    with pytest.raises(FloatingPointError, match=r"in step 1 model\.embed_tokens\.weight"):
        fine_tune(*fresh(), TRAINED, tmp_path, learning_rate=1e39, max_steps=1)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_of_noise_neither_loads_nor_answers(
    fresh: Callable[[], Loaded], tmp_path: Path, value: float
) -> None:
    model, tokenizer = fresh()
    with torch.no_grad():
        model.model.norm.weight[3] = value
    with pytest.raises(ValueError, match=r"model\.norm\.weight is not finite"):
        answer(model, tokenizer, ["Hi!"])
    models.save(model, tokenizer, tmp_path)
    with pytest.raises(RuntimeError, match=r"model\.norm\.weight is not finite"):
        models.load(tmp_path)


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "other data": ({"chats": TRAINED[1:]}, "rows: 12, now 11; chats: "),
    "as many other chats": ({"chats": [PAIR] * 12}, "chats: "),
    "a learning rate": ({"learning_rate": 1e-3}, "learning_rate: 0.0002, now 0.001"),
    "epochs": ({"num_train_epochs": 2}, "num_train_epochs: 1, now 2"),
    "a batch size": ({"per_device_train_batch_size": 2}, "per_device_train_batch_size: 4, now 2"),
    "a seed": ({"seed": 1}, "seed: 42, now 1"),
    "max_length": ({"max_length": 100}, "max_length: 2048, now 100"),
    "an incomplete last batch": ({"dataloader_drop_last": True}, "dataloader_drop_last: False, now True"),
    "the trained part": ({"layers": 1}, "trained: "),
    "adapters": ({"rank": 4}, "trained: "),
    "the model": ({"shift": 0.5}, "weights: "),
}


@pytest.fixture(scope="module")
def interrupted(tinyllama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    fine_tune(*models.load(tinyllama_folder), TRAINED, folder, **SAVING)
    return folder


@pytest.mark.parametrize(("change", "expected"), CHANGED.values(), ids=CHANGED)
def test_another_run_is_not_resumed(
    fresh: Callable[[], Loaded], interrupted: Path, change: dict[str, Any], expected: str
) -> None:
    model, tokenizer = fresh()
    before = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    arguments = {"chats": TRAINED, **SAVING, **change}
    if "layers" in change:
        train_last_layers(model, arguments.pop("layers"))
    if "rank" in change:
        model = add_adapters(model, arguments.pop("rank"))
    if "shift" in change:
        with torch.no_grad():
            model.model.norm.weight += arguments.pop("shift")
    with pytest.raises(ValueError, match=f"is another run's .*{expected}"):
        fine_tune(model, tokenizer, folder=interrupted, resume=True, **arguments)
    assert {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()} == before


def test_what_changes_nothing_may_change(
    fresh: Callable[[], Loaded], interrupted: Path, tmp_path: Path
) -> None:
    """And the checkpoint, which knows how often it was to be saved, does not hold on to it."""
    folder = Path(shutil.copytree(interrupted, tmp_path / "copy"))
    for step in (2, 3):
        shutil.rmtree(folder / f"checkpoint-{step}")
    same = {**SAVING, "save_steps": 3, "logging_steps": 2, "seed": 42}  # which is what it was
    losses = fine_tune(*fresh(), TRAINED, folder, resume=True, **same)
    assert len(losses) == 3
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-3"}


def test_a_training_is_not_overwritten_unasked(fresh: Callable[[], Loaded], tmp_path: Path) -> None:
    model, tokenizer = fresh()
    fine_tune(model, tokenizer, TRAINED, tmp_path, max_steps=1)
    weights = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"holds a training\. Give another folder"):
        fine_tune(*fresh(), TRAINED, tmp_path, max_steps=2)
    with pytest.raises(ValueError, match="holds a finished training, and no checkpoint"):
        fine_tune(*fresh(), TRAINED, tmp_path, max_steps=1, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    fine_tune(*fresh(), TRAINED, tmp_path, overwrite=True, max_steps=2, **SAVING)
    assert json.loads((tmp_path / "training.json").read_text())["max_steps"] == 2
    assert (tmp_path / "model.safetensors").read_bytes() != weights
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    # A model that was itself loaded from one of its checkpoints would be gone.
    model, tokenizer = fresh()
    model.name_or_path = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match="The model comes from"):
        fine_tune(model, tokenizer, TRAINED, tmp_path, overwrite=True, max_steps=1)
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()
    # Another run's checkpoints must not be resumed by the next.
    fine_tune(*fresh(), TRAINED, tmp_path, overwrite=True, max_steps=1)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("first", ["adapters", "all weights"])
def test_of_an_overwritten_model_nothing_is_loaded(
    fresh: Callable[[], Loaded], tmp_path: Path, first: str
) -> None:
    """transformers puts adapters that lie beside a model on it."""
    _, tokenizer = fresh()
    both = {"adapters": add_adapters(fresh()[0], 4), "all weights": fresh()[0]}
    fine_tune(both.pop(first), tokenizer, TRAINED, tmp_path, max_steps=1)
    models.save(fresh()[0], tokenizer, tmp_path / "merged")
    (tmp_path / "README.md").write_text("Mine.")  # peft would write its own in it
    (tmp_path / "added_tokens.json").write_text('{"<foo>": 431}')  # as transformers 4 saves a tokenizer
    (tmp_path / "my_config.json").write_text("{}")
    (last,) = both.values()
    fine_tune(last, tokenizer, TRAINED, tmp_path, overwrite=True, max_steps=1)
    found = {path.name for path in tmp_path.glob("*.safetensors")}
    assert found == {"model.safetensors" if first == "adapters" else "adapter_model.safetensors"}
    assert (tmp_path / "adapter_config.json").exists() == (first != "adapters")
    assert (tmp_path / "config.json").exists() == (first == "adapters")
    assert not list((tmp_path / "merged").iterdir())
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(tokenizer)
    assert (tmp_path / "my_config.json").exists()
    assert (tmp_path / "README.md").read_text() == "Mine."


@pytest.mark.parametrize("name", ["training.json", "trainer_state.json", "model.safetensors", "vocab.json"])
def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_prepared(
    fresh: Callable[[], Loaded], tmp_path: Path, name: str
) -> None:
    (tmp_path / name / "mine").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{name} is a folder, and a file of this name is to be written"):
        fine_tune(*fresh(), ["no chat"], tmp_path, overwrite=True)
    assert (tmp_path / name / "mine").is_dir()


def test_adapters_are_not_put_on_adapters(fresh: Callable[[], Loaded]) -> None:
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapters(add_adapters(fresh()[0], 4), 4)


def test_an_overwriting_run_that_was_stopped_goes_on_from_the_beginning(
    fresh: Callable[[], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = {"learning_rate": 1e-3, "max_steps": 2}
    fine_tune(*fresh(), TRAINED, tmp_path, max_steps=1)
    for process in (0, 3):
        (tmp_path / f".examples-{process}").mkdir()  # of a run that was killed
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "on_log", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) as stopped:
            fine_tune(*fresh(), TRAINED, tmp_path, overwrite=True, **again)
    assert "With --resume it goes on from the beginning" in stopped.value.__notes__[0]
    assert not json.loads((tmp_path / "training.json").read_text())["finished"]
    assert (tmp_path / "model.safetensors").exists()  # the earlier model, until the new one is whole
    losses = fine_tune(*fresh(), TRAINED, tmp_path, resume=True, **again)
    assert losses == fine_tune(*fresh(), TRAINED, **again)
    assert json.loads((tmp_path / "training.json").read_text())["finished"]
    assert not list(tmp_path.glob(".examples*"))


def test_a_folder_is_not_written_to_where_the_model_comes_from(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    model, tokenizer = fresh()
    model.name_or_path = str(tmp_path / "merged")
    with pytest.raises(ValueError, match="The model comes from"):
        fine_tune(model, tokenizer, TRAINED, tmp_path, overwrite=True, max_steps=1)


def test_a_tokenizer_without_pad_token_is_refused_first(
    fresh: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chattune.train.prepare", lambda *_: pytest.fail("too late"))
    model, tokenizer = fresh()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="has no pad token"):
        fine_tune(model, tokenizer, TRAINED)


def test_only_models_of_llamas_kind_have_last_layers(gpt2: Any) -> None:
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel has no model\.layers"):
        train_last_layers(gpt2, 1)
    with pytest.raises(ValueError, match="whole number"):
        add_adapters(gpt2, 1.5)


def test_float16_in_which_every_step_is_left_out_ends(
    fresh: Callable[[], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled gradients may overflow, so they tell nothing; the loss does. (No CPU trains in float16.)"""
    monkeypatch.setattr("torch.nn.utils.get_total_norm", lambda _: torch.tensor(1.0))
    model, tokenizer = fresh()
    model.get_input_embeddings().register_forward_hook(lambda *call: call[2] * float("nan"))
    with pytest.raises(FloatingPointError, match="in step 1 the loss is no finite number"):
        fine_tune(model, tokenizer, TRAINED, tmp_path, max_steps=2, max_grad_norm=0)
    assert not (tmp_path / "model.safetensors").exists()


def test_of_two_runs_into_one_folder_the_second_is_refused(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / ".lock"):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    try:
        with pytest.raises(ValueError, match="Another training is writing to"):
            fine_tune(*fresh(), TRAINED, tmp_path, max_steps=1)
    finally:
        done.set()
        other.join()


def test_a_process_touches_no_folder_that_the_first_has_not_claimed(
    fresh: Callable[[], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process of a run that is refused must not remove what the running one trains on."""
    examples = tmp_path / ".examples-1" / "chats.arrow"
    examples.parent.mkdir()
    examples.write_text("another's")

    def refused(_: PartialState) -> None:
        raise RuntimeError("Connection closed")

    monkeypatch.setattr(TrainingArguments, "process_index", 1)
    monkeypatch.setattr(PartialState, "wait_for_everyone", refused)
    with pytest.raises(RuntimeError, match="Connection closed"):
        fine_tune(*fresh(), TRAINED, tmp_path, overwrite=True)
    assert examples.read_text() == "another's"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut off": lambda c: os.truncate(c / "model.safetensors", 5000),
    "no weights": lambda c: (c / "model.safetensors").unlink(),
    "an optimizer cut off": lambda c: os.truncate(c / "optimizer.pt", 5000),
    "an optimizer with a wrong byte": lambda c: (c / "optimizer.pt").write_bytes(
        (c / "optimizer.pt").read_bytes()[:20_000] + b"x" + (c / "optimizer.pt").read_bytes()[20_001:]
    ),
    "no optimizer": lambda c: (c / "optimizer.pt").unlink(),
    "no schedule": lambda c: (c / "scheduler.pt").unlink(),
    "a random state cut off": lambda c: os.truncate(c / "rng_state.pth", 3000),
    "a state cut off": lambda c: (c / "trainer_state.json").write_text('{"global_'),
    "no state": lambda c: (c / "trainer_state.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(
    fresh: Callable[[], Loaded], interrupted: Path, tmp_path: Path, damage: Callable[[Path], object],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(interrupted, tmp_path / "copy"))
    damage(folder / "checkpoint-3")
    losses = fine_tune(*fresh(), TRAINED, folder, resume=True, **SAVING)
    assert re.search(r"checkpoint-3 is passed over", capsys.readouterr().out)
    assert len(losses) == 3
    assert (folder / "model.safetensors").read_bytes() == (interrupted / "model.safetensors").read_bytes()


def test_a_tokenizer_of_another_model_is_refused(fresh: Callable[[], Loaded]) -> None:
    model, tokenizer = fresh()
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(ValueError, match="tokens, the model 431: it is another's"):
        fine_tune(model, tokenizer, TRAINED)


def test_a_disk_without_room_is_found_first(
    fresh: Callable[[], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr("chattune.train.prepare", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match=r"too full: what the training writes needs 0\.0 GB"):
        fine_tune(*fresh(), TRAINED, tmp_path)


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from training_data import CHATS
from chattune.__main__ import main
from chattune.watch import Watch
import json, pathlib
pathlib.Path("chats.jsonl").write_text("".join(json.dumps(chat) + chr(10) for chat in CHATS))
size = (pathlib.Path({model!r}) / "model.safetensors").stat().st_size
options = ["--batch-size", "4", "--save-steps", "1"]
sys.argv = ["train", "--data", "chats.jsonl", "--model", {model!r}, "--output", "out", *options]
log = Watch.on_log
def later(watch, args, state, *rest, **more):
    log(watch, args, state, *rest, **more)
    if state.global_step == 2:  # the first checkpoint is whole
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2,) * 2)
Watch.on_log = later
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no quotas to set")
def test_a_disk_that_fills_up_ends_in_a_line_and_leaves_no_half_model(
    tinyllama_folder: Path, tmp_path: Path
) -> None:
    code = FULL.format(tests=str(Path(__file__).parents[1]), model=str(tinyllama_folder))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search("was written last. With --resume it goes on from out/checkpoint-1", done.stderr), (
        done.stderr
    )
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_ctrl_c_says_how_to_go_on(
    tinyllama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_bytes(lines(*TRAINED))
    options = ["--batch-size", "4", "--save-steps", "1", "--model", str(tinyllama_folder)]
    given = ["train", "--data", str(data), "--output", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", given)
    step = Watch.on_log

    def stop(watch: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        step(watch, args, state, *rest, **more)
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "on_log", stop)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 130
    assert re.search(r"Stopped\. .*With --resume it goes on from .*checkpoint-1", capsys.readouterr().err)
    monkeypatch.setattr(sys, "argv", [*given, "--resume"])
    main()
    assert "3 steps" in capsys.readouterr().out


@contextmanager
def handled_by(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def test_sigterm_ends_a_training_also_where_ctrl_c_is_ignored(
    command_line: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with nohup, and of all that a script runs in the background."""
    monkeypatch.setattr(Watch, "on_train_begin", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    ignored = handled_by(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM)
    with ignored, pytest.raises(SystemExit) as ended:
        command_line()
    assert ended.value.code == 130
    assert "With --resume it goes on from" in capsys.readouterr().err


def test_of_several_processes_the_first_speaks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another waits with an error, so that the launcher ends it first if the first process has met it too."""
    given = ["train", "--data", "no.jsonl", "--output", "out"]
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.setenv("RANK", "1")
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)

    def read(path: str) -> Any:
        print("Read.")
        logging.get_logger("transformers").warning("Not used.")
        return load_chats(path)

    monkeypatch.setattr("chattune.__main__.load_chats", read)
    with pytest.raises(SystemExit, match="No such file"):
        main()
    assert waited == [10]
    monkeypatch.setattr("chattune.__main__.load_chats", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert waited == [10]
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


def test_an_unknown_device_is_named(tinyllama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYLIB_DEVICE", "nope")
    with pytest.raises(RuntimeError, match="TINYLIB_DEVICE is 'nope', which does not work here"):
        models.load(tinyllama_folder)


def test_weight_0_is_read_and_not_learned(tinyllama: Loaded) -> None:
    chat = [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Bananas.", "weight": 0},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Paris.", "weight": 1},
    ]
    (row,) = prepare(tinyllama[1], [chat])
    learned = tinyllama[1].decode([label for label in row["labels"] if label >= 0])
    assert "Paris." in learned
    assert "Bananas" not in learned
    assert "Bananas." in tinyllama[1].decode(row["input_ids"])


def test_model_and_tokenizer_in_the_other_order(tinyllama: Loaded) -> None:
    with pytest.raises(ValueError, match=r"Give a model and its tokenizer, not .*Tokenizer.* and .*Llama"):
        fine_tune(*reversed(tinyllama), TRAINED)
    with pytest.raises(ValueError, match=r"Give a model and its tokenizer, not .*Linear"):
        fine_tune(torch.nn.Linear(2, 2), tinyllama[1], TRAINED)


class ScoresAll(LlamaForCausalLM):
    def forward(self, input_ids: torch.Tensor) -> Any:
        return super().forward(input_ids)


def test_a_model_whose_loss_is_another_is_refused_with_the_reason(tinyllama: Loaded) -> None:
    model, tokenizer = tinyllama
    with pytest.raises(ValueError, match=r"ScoresAll cannot leave out logits.* Train it with"):
        fine_tune(ScoresAll(model.config), tokenizer, TRAINED)
    small = MixtralConfig(
        vocab_size=512, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, output_router_logits=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"Mixtral.* loss that is not plain cross-entropy. Train it with"):
        fine_tune(MixtralForCausalLM(small), tokenizer, TRAINED)


@pytest.mark.parametrize("content", ['{"mine": 1}', "[1, 2]", '{"weights": "ab', "", "7"])
@pytest.mark.parametrize(
    "asked", [{}, {"overwrite": True}, {"resume": True}], ids=["unasked", "over", "resume"]
)
def test_a_training_json_that_is_no_trainings_is_named_and_kept(
    tinyllama: Loaded, tmp_path: Path, content: str, asked: dict[str, bool]
) -> None:
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(ValueError, match=r"training\.json is (damaged|no training's).*: move it"):
        fine_tune(*tinyllama, TRAINED, tmp_path, **asked)
    assert (tmp_path / "training.json").read_text() == content


def test_overwriting_leaves_alone_what_is_no_checkpoint_of_its_own(
    fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    fine_tune(*fresh(), TRAINED, folder, **SAVING)
    shutil.move(folder / "checkpoint-1", elsewhere)
    (folder / "checkpoint-1").symlink_to(elsewhere, target_is_directory=True)
    (folder / "checkpoint-notes.txt").write_text("mine")
    fine_tune(*fresh(), TRAINED, folder, overwrite=True, max_steps=1)
    assert sorted(folder.glob("checkpoint-*")) == [folder / "checkpoint-notes.txt"]
    assert (elsewhere / "model.safetensors").is_file()


@pytest.mark.parametrize("option", ["--data", "--eval-data"])
def test_data_that_overwriting_would_remove_are_kept(
    command_line: Callable[..., None], tmp_path: Path, option: str
) -> None:
    data = tmp_path / "out" / "checkpoint-3" / "chats.jsonl"
    data.parent.mkdir(parents=True)
    data.write_bytes(lines(*TRAINED))
    with pytest.raises(SystemExit) as ended:
        command_line(option, data, "--overwrite")
    assert re.search("chats.jsonl lies in .*out, and --overwrite might remove it", str(ended.value.code))
    assert data.is_file()


@pytest.fixture
def command_line(
    tinyllama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Run ``python -m chattune`` into the folder ``out``."""
    (tmp_path / "chats.jsonl").write_bytes(lines(*TRAINED))

    def run(*more: Any) -> None:
        given = [
            "--data",
            tmp_path / "chats.jsonl",
            "--output",
            tmp_path / "out",
            "--model",
            tinyllama_folder,
        ]
        monkeypatch.setattr(sys, "argv", ["train", *map(str, [*given, *more])])
        main()

    return run


def test_adapters_whose_merging_is_stopped_are_whole(
    command_line: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held = []

    def stop(*_: Any) -> None:
        with ThreadPoolExecutor() as other:
            held.append(other.submit(FileLock(tmp_path / "out" / ".lock", timeout=0).acquire).exception())
        raise KeyboardInterrupt

    monkeypatch.setattr("tinylib.models.save", stop)
    with pytest.raises(SystemExit) as ended:
        command_line("--lora", 4)
    assert ended.value.code == 130
    assert [type(error) for error in held] == [Timeout]
    load = f"AutoPeftModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r})"
    assert f"whole, but not merged: {load}.merge_and_unload()" in capsys.readouterr().err
    merged = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").merge_and_unload()
    assert type(merged).__name__ == "LlamaForCausalLM"


def test_ctrl_c_while_files_get_their_places_leaves_the_whole_model(
    command_line: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A gigabyte takes a second to remove: a trained model was lost, with the one that it replaced."""
    put = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "model.safetensors":
            _thread.interrupt_main()
        return put(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    usual = handled_by(signal.default_int_handler, signal.SIGINT)  # ignored by what runs in background
    with usual, pytest.raises(SystemExit) as ended:
        command_line()
    assert ended.value.code == 130
    assert "out holds a finished training, whole." in capsys.readouterr().err
    models.load(tmp_path / "out")
    assert not (tmp_path / "out" / ".part").exists()
