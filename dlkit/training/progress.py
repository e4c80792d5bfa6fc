"""The bar of a training: how far the epoch and the whole run are, the time left, and the latest loss and accuracy."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

from dlkit.training.loop import Run

FORMAT = "{desc} |{bar}| {percentage:.0f} %  {remaining} left{postfix}"


class TrainingBar:
    """epoch 2/10 45 % |███▌      | 14 %  02:13 left, loss 0.3120, 91.2 %; both of training samples."""

    def __init__(self, run: Run, shown: bool) -> None:
        self.run = run
        total = run.steps_per_epoch * run.settings.epochs
        self._bar = tqdm(
            total=total, initial=run.step, disable=not shown, leave=False, dynamic_ncols=True, bar_format=FORMAT,
            desc=self._epoch(),
        )  # fmt: skip

    def advance(self, count: int) -> None:
        """Count that many steps as done; tqdm decides when to draw."""
        if not self._bar.disable:
            self._bar.set_description_str(self._epoch(), refresh=False)
            if self.run.window.samples:  # else it has just been logged: what was shown last stays
                self._bar.set_postfix_str(self._window(), refresh=False)
        self._bar.update(count)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def _epoch(self) -> str:
        steps, epochs = self.run.steps_per_epoch, self.run.settings.epochs
        done = min(max(self.run.step - 1, 0) // steps, epochs - 1)
        return f"epoch {done + 1}/{epochs} {(self.run.step - done * steps) / steps:.0%}"

    def _window(self) -> str:
        window = self.run.window
        loss = f"loss {window.loss / window.samples:.4f}"
        return f"{loss}, {window.correct / window.samples:.1%}" if self.run.classes else loss
