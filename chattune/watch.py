"""What is shown of a training, and its end where it diverges."""

import math
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.trainer_callback import TrainerCallback

from tinylib.models import not_finite


class Watch(TrainerCallback):
    """One bar for the whole training, with the loss of the last step, and its end where that diverges."""

    def __init__(self) -> None:
        self.bar, self.shown = tqdm(disable=True), {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar; save, log and evaluate as often as is asked for now, not as before a resumption."""
        state.compute_steps(args, state.max_steps)
        steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
        self.bar = tqdm(**steps, desc="training", disable=not state.is_world_process_zero)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """End a training whose gradients are not finite: before the step, so that the weights stay."""
        # A loss that is not finite is in every gradient. Those of float16 are scaled and may overflow: then
        # their step is left out.
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if args.fp16 or not gradients:
            return
        # Clipping by a norm that is not finite leaves nothing but zeros and NaN: then the smallest tells.
        smallest = min(gradients, key=torch.Tensor.numel)
        if args.max_grad_norm > 0 and smallest.isfinite().all() and smallest.any():
            return
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            self._end("the loss or a gradient", state.global_step + 1, args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Move the bar on, and look at weights that are to be saved."""
        self.bar.update(state.global_step - self.bar.n)
        control.should_log |= state.global_step == state.max_steps  # also what fills no logging_steps
        self._check_what_is_saved(args, state, control, model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Look at weights that are to be saved: only here is it known that each epoch's checkpoint is due."""
        self._check_what_is_saved(args, state, control, model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Show the losses; end a training whose loss is not finite: with float16 nothing else tells it."""
        if not math.isfinite(logs.get("loss", 0.0)):
            self._end("the loss", state.global_step, args, state)
        new = {name: logs[name] for name in ("loss", "eval_loss", "eval_exact") if name in logs}
        self.shown |= {name: f"{value:.3f}" for name, value in new.items()}
        self.bar.set_postfix(self.shown)

    def _check_what_is_saved(self, args: Any, state: Any, control: Any, model: Any) -> None:
        due = control.should_save or state.global_step == state.max_steps
        if due and (name := not_finite(model)):
            self._end(name, state.global_step, args, state)

    def _end(self, what: str, step: int, args: Any, state: Any) -> None:
        losses = [log["loss"] for log in state.log_history if "loss" in log]
        raise FloatingPointError(
            f"The training has diverged: in step {step} {what} is no finite number any more. The last losses "
            f"were {losses[-3:]}. Try a learning rate below {args.learning_rate:g}, float32 if it ran in 16 "
            "bits, and look for rows without a label."
        )
