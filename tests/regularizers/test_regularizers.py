"""Laws that every regularizer keeps, held for a new file without a line here; then each one against its formula."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from crash import Small
from tiny_training import TINY, in_two_processes, same_bits, tiny, weights
from torch import Tensor, nn

from dlkit import atomic_io, registry
from dlkit.config.resolve import resolve
from dlkit.data.batches import Batch
from dlkit.errors import DivergedError, ModelFileError, UsageError
from dlkit.layers.averaging import estimating_norms
from dlkit.regularizers import Plan, Regularizer, cutmix, cutout, gaussian_prior, max_norm, mixup, orthogonal, sam, swa
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec, SequenceSpec
from dlkit.training import assembly, inputs, loop, state, train
from dlkit.training.distributed import World
from dlkit.training.restore import restore

NAMES = sorted(registry.entries("regularizers"))
every_regularizer = pytest.mark.parametrize("name", NAMES)

SPEC = ImageSpec(3, 12, 20, ("a", "b", "c", "d"), (0.5,) * 3, (0.5,) * 3)
# large steps, so that a limit on the weights is met; with dropout, so that a stream that is drawn from shows
SETTINGS = {
    "data.options.train": 40, "train.batch_size": 16, "train.epochs": 4, "model.options.dropout": 0.2,
    "optimizer.lr": 0.5,
}  # fmt: skip


def plan(*names: str, weights: dict[str, Tensor] | None = None) -> Plan:
    return Plan(SPEC, 100, 5, 4, frozenset(names), lambda source: weights or {})


def build(name: str, model: nn.Module, **options: Any) -> Regularizer:
    found = registry.load("regularizers", name).build(**{**_fitting(name), **options})
    assert isinstance(found, Regularizer)
    found.on_model(model, plan(name))
    return found


def _fitting(name: str) -> dict[str, Any]:
    """A cutout of the default's 16 pixels is more than these images have."""
    return {"size": 6} if name == "cutout" else {}


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 10 * 18, 4)).to(dtype)


def batch(count: int = 8) -> Batch:
    images = torch.randn(count, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 4, torch.arange(count), total=count)


def test_the_sweep_sweeps_something() -> None:
    assert set(NAMES) >= {
        "cutmix", "cutout", "gaussian_prior", "gradient_noise", "l1", "l2", "max_norm", "mixup", "orthogonal", "sam",
        "swa",
    }  # fmt: skip


def trained(**settings: object) -> loop.Run:
    """A run after its steps, in memory alone."""
    chosen = {**TINY, **SETTINGS, **settings}
    made = resolve("mlp", "shapes", flags=chosen).recipe
    data = inputs.prepare(made, str)
    model, scratch = assembly.begin(made, data, None, str)
    run = assembly.assemble(made, data, torch.device("cpu"), World(), model, scratch, Path(), str)
    batches, _ = assembly.batches(run, made, data)
    for epoch in range(made.train.epochs):
        for given in batches.epoch(epoch):
            loop.train_step(run, given)
    return run


@pytest.fixture(scope="module")
def plain() -> loop.Run:
    """The run without any."""
    return trained()


@every_regularizer
def test_strength_0_changes_no_bit(name: str, plain: loop.Run) -> None:
    off = registry.entry("regularizers", name).off
    assert off, f"{name} has no literal OFF"
    run = trained(**{f"regularizers.{name}.{option}": value for option, value in off.items()})
    with_it, without = state.tensors(run), state.tensors(plain)
    assert with_it.keys() == without.keys() and all(torch.equal(with_it[key], without[key]) for key in without)
    assert run.window == plain.window and run.step == 8


@every_regularizer
def test_with_its_defaults_each_changes_the_weights_that_are_evaluated(name: str, plain: loop.Run) -> None:
    changed, before = (run.evaluated.state_dict() for run in (trained(**{f"regularizers.{name}": {}}), plain))
    assert any(not torch.equal(changed[key], before[key]) for key in before)
    assert all(bool(tensor.isfinite().all()) for tensor in changed.values())


@every_regularizer
def test_what_the_catalog_reads_is_what_python_has(name: str) -> None:
    module = registry.load("regularizers", name)
    entry = registry.entry("regularizers", name)
    assert dict(entry.off) == module.OFF and module.build.__kwdefaults__ == dict(entry.options)
    assert set(entry.off) <= set(entry.options) and registry.is_on(name, {})
    assert entry.summary.endswith(".") and len(entry.summary) <= 120
    assert any(str(year) in entry.document for year in range(1943, 2100)), "no paper"


@every_regularizer
def test_a_whole_number_does_for_an_option_that_takes_a_fraction(name: str) -> None:
    defaults = registry.entry("regularizers", name).options
    whole = {option: 1 for option, value in defaults.items() if isinstance(value, float)}
    build(name, network(), **whole).on_batch(batch())


@every_regularizer
def test_the_gradient_of_a_penalty_is_that_of_finite_differences(name: str) -> None:
    model = network(torch.float64)
    part = build(name, model)
    value = part.penalty(model)
    if value is None:
        return
    assert value.ndim == 0 and value > 0
    value.backward()
    for weight in model.parameters():
        direction, gradient = torch.randn_like(weight), weight.grad
        slope = torch.zeros(()) if gradient is None else (gradient * direction).sum()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(direction, alpha=sign * 1e-6)
                ends.append(part.penalty(model))
                weight.sub_(direction, alpha=sign * 1e-6)
        assert ends[0] is not None and ends[1] is not None
        assert float(ends[0] - ends[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-4, abs=1e-9)


@every_regularizer
def test_biases_and_norms_are_never_penalized(name: str) -> None:
    model = network()
    penalty = build(name, model).penalty(model)
    if penalty is not None:
        penalty.backward()
        assert all(weight.grad is None for weight in model.parameters() if weight.ndim < 2)


@every_regularizer
def test_what_stands_still_is_left_alone(name: str) -> None:
    """A frozen layer has no gradient, so none is made up for it, and its weights are nobody's business."""
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.detach().clone()
    part = build(name, model)
    penalty = part.penalty(model)
    model(batch().inputs).sum().backward()
    part.on_gradients(model, 0)
    part.on_weights(model, 0)
    assert model[0].weight.grad is None and torch.equal(model[0].weight, before)
    assert penalty is None or penalty.requires_grad


@every_regularizer
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_a_batch_stays_a_batch(name: str, format: torch.memory_format) -> None:
    given = batch()
    given = replace(given, inputs=given.inputs.contiguous(memory_format=format))
    before = copy.deepcopy(given)
    torch.manual_seed(3)
    made = build(name, network()).on_batch(given)
    assert torch.equal(given.inputs, before.inputs) and torch.equal(given.targets, before.targets)
    assert made.inputs.shape == given.inputs.shape and made.inputs.dtype == given.inputs.dtype
    assert made.inputs.is_contiguous(memory_format=format), "a copy would be made in every convolution"
    assert len(made) == len(given) == sum(len(part) for part in made.parts(3)) and made.total == given.total
    assert torch.equal(made.indices, given.indices)
    if made.targets.ndim == 2:
        assert made.targets.shape == (8, 4) and torch.allclose(made.targets.sum(dim=1), torch.ones(8))
        assert (made.targets >= 0).all()


@every_regularizer
def test_randomness_comes_from_the_global_stream_alone(name: str) -> None:
    def outcome(seed: int) -> list[Tensor]:
        model = network()
        part = build(name, model)
        model(batch().inputs).sum().backward()
        torch.manual_seed(seed)
        made = part.on_batch(batch())
        part.on_gradients(model, 3)
        part.on_weights(model, 3)
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        return [made.inputs, made.targets, *gradients, *model.parameters()]

    first, again = outcome(5), outcome(5)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("name", ["mixup", "cutmix", "cutout"])
def test_what_is_for_images_says_so_where_there_are_none(name: str) -> None:
    part = registry.load("regularizers", name).build()
    sequences = SequenceSpec(("a", "b"), vocabulary=10)
    with pytest.raises(UsageError, match=f"{name} is for images") as caught:
        part.on_model(network(), replace(plan(name), spec=sequences))
    assert "\n" not in str(caught.value)


def evaluated(run: RunFolder) -> dict[str, Tensor]:
    return dict(restore(run, "last").model.state_dict())


# -- each against its formula


def test_l1_draws_by_the_sign_and_l2_by_the_weight() -> None:
    for name in ("l1", "l2"):
        model = network()
        penalty = build(name, model, strength=0.3).penalty(model)
        assert penalty is not None
        penalty.backward()
        for weight in (model[0].weight, model[3].weight):
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad, 0.3 * (weight.sign() if name == "l1" else weight.detach()))


def test_gaussian_prior_is_map_estimation() -> None:
    """−log prior / n: its gradient is (w − m) / (n σ²), and the metric is the whole log density."""
    model = network(torch.float64)
    start = {"0.weight": torch.randn(5, 3, 3, 3), "3.weight": torch.randn(7, 7), "1.weight": torch.ones(5)}
    part = gaussian_prior.build(mean="x", std=0.3, new_std=2.0)
    part.on_model(model, plan("gaussian_prior", weights=start))
    penalty = part.penalty(model)
    assert penalty is not None
    penalty.backward()
    mean = start["0.weight"].double()
    kernel, matrix = model[0].weight, model[3].weight  # the matrix has no mean of its shape: about zero
    assert kernel.grad is not None and matrix.grad is not None
    torch.testing.assert_close(kernel.grad, (kernel - mean) / (100 * 0.3**2))
    torch.testing.assert_close(matrix.grad, matrix / (100 * 2.0**2))
    exact = torch.distributions.Normal(mean, 0.3).log_prob(kernel).sum()
    exact = exact + torch.distributions.Normal(0.0, 2.0).log_prob(matrix).sum()
    assert part.metrics(model)["train/log_prior"] == pytest.approx(exact.item())


def test_the_log_prior_is_in_the_metrics_and_the_most_probable_weights_are_found(tmp_path: Path) -> None:
    held, loose = (
        tiny(tmp_path, str(std), **{"regularizers.gaussian_prior.std": std, "train.epochs": 4}) for std in (0.01, 1.0)
    )
    lengths = [
        sum(float(t.square().sum()) for n, t in restore(run, "last").model.state_dict().items())
        for run in (held, loose)
    ]
    assert lengths[0] < lengths[1]
    assert all(math.isfinite(line["train/log_prior"]) for line in held.metrics())


def test_l2_sp_draws_to_the_weights_that_training_starts_from(tmp_path: Path) -> None:
    source = tiny(tmp_path, "source")
    settings = {"model.weights": str(source.path), "train.seed": 5, "train.epochs": 6}
    free = tiny(tmp_path, "free", **settings)
    held = tiny(
        tmp_path, "held", **settings,
        **{"regularizers.gaussian_prior.mean": "start", "regularizers.gaussian_prior.std": 0.01},
    )  # fmt: skip
    start = restore(source, "last").model.state_dict()
    moved = [
        sum(
            float((tensor - start[key]).square().sum())
            for key, tensor in restore(run, "last").model.state_dict().items()
        )
        for run in (free, held)
    ]
    assert moved[1] < 0.5 * moved[0]


def test_a_prior_about_weights_that_do_not_fit_is_refused() -> None:
    part = gaussian_prior.build(mean="x")
    with pytest.raises(ModelFileError, match="none of its 1 tensors fits"):
        part.on_model(network(), plan("gaussian_prior", weights={"0.weight": torch.zeros(1)}))
    with pytest.raises(UsageError, match="std"):
        gaussian_prior.build(std=0)


def test_orthogonal_is_0_where_rows_or_columns_are_orthonormal() -> None:
    square, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    for weight in (square, square[:4], square[:, :4], square[:4].reshape(4, 2, 3, 1)):
        assert float(orthogonal.distance_from_orthonormal(weight)) == pytest.approx(0, abs=1e-20)
    assert float(orthogonal.distance_from_orthonormal(2 * square[:4])) == pytest.approx(4 * 9)  # (4 − 1)² a row


def test_max_norm_is_torchs_renorm() -> None:
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(20)
        model[3].weight[0].zero_()
    before = [weight.detach().clone() for weight in model.parameters()]
    build("max_norm", model, limit=0.7).on_weights(model, 0)
    for weight, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(weight.detach(), torch.renorm(old, 2, 0, 0.7) if old.ndim > 1 else old)
    assert model[3].weight.flatten(1).norm(dim=1).max().item() == pytest.approx(0.7, rel=1e-5)
    assert (max_norm.scales(torch.zeros(2, 3), 0.7) == 1).all()


def test_gradient_noise_has_the_deviation_of_its_step() -> None:
    model = nn.Linear(300, 300, bias=False)
    part = build("gradient_noise", model, eta=0.3)
    for step in (0, 9, 999):
        model.weight.grad = torch.ones(300, 300)
        part.on_gradients(model, step)
        noise = model.weight.grad - 1
        assert float(noise.std()) == pytest.approx(math.sqrt(0.3 / (1 + step) ** 0.55), rel=0.02)
        assert abs(float(noise.mean())) < 4 * float(noise.std()) / 300


@pytest.mark.parametrize("share", [0.0, 0.37, 1.0])
def test_a_cutmix_box_lies_inside_the_image_at_both_ends_of_the_draws(share: float) -> None:
    last = float(torch.nextafter(torch.ones(()), torch.zeros(())))  # the largest number that torch.rand draws
    for height, width in ((1, 1), (32, 32), (28, 3)):
        for row, column in ((0.0, 0.0), (last, last), (0.0, last)):
            rows, columns = cutmix.box_about((int(row * height), int(column * width)), (height, width), share)
            assert 0 <= rows.start <= rows.stop <= height and 0 <= columns.start <= columns.stop <= width
            assert share != 0 or rows.stop > rows.start


def test_mixup_blends_images_and_targets_by_the_same_share() -> None:
    part, given = build("mixup", network(), alpha=1.0), batch()
    given = replace(given, inputs=torch.eye(8)[:, :, None, None].expand(8, 8, 2, 2))  # image i is a plane of its own
    shares = set()
    for seed in range(20):
        torch.manual_seed(seed)
        made = part.on_batch(given)
        own = made.inputs[:, :, 0, 0]  # (8, 8): the share of each image in each
        assert torch.allclose(made.targets, own @ nn.functional.one_hot(given.targets, 4).float(), atol=1e-6)
        shares.update(round(float(value), 4) for value in own.flatten() if 0 < value < 1)
    assert len(shares) >= 20
    torch.testing.assert_close(mixup.blend(torch.ones(2), torch.zeros(2), 0.25), torch.full((2,), 0.25))


def test_cutmix_targets_follow_the_pixels() -> None:
    part, given = build("cutmix", network()), batch()
    given = replace(given, inputs=torch.arange(8.0)[:, None, None, None].expand(8, 3, 12, 20))  # image i is all i
    mixed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        made = part.on_batch(given)
        hot = nn.functional.one_hot(given.targets, 4).float()
        for image, target, own in zip(made.inputs, made.targets, hot, strict=True):
            counts = torch.bincount(image[0].flatten().long(), minlength=8) / 240
            assert torch.allclose(target, counts @ hot, atol=1e-6)
            mixed += not torch.equal(target, own)
    assert mixed > 40
    assert cutmix.box_about((0, 19), (12, 20), 0.75) == (slice(0, 3), slice(14, 20))  # cut off at the border


def test_mixup_and_cutmix_share_the_batches_evenly() -> None:
    parts = [registry.load("regularizers", name).build(alpha=1.0) for name in ("cutmix", "mixup")]
    for part in parts:
        part.on_model(network(), plan("cutmix", "mixup"))
    by_cutmix = 0
    for seed in range(200):
        torch.manual_seed(seed)
        first = parts[0].on_batch(batch())
        second = parts[1].on_batch(first)
        assert second.targets.ndim == 2
        assert (second is first) == (first.targets.ndim == 2)  # never both on one batch
        by_cutmix += second is first
    assert 70 < by_cutmix < 130


def test_cutout_paints_a_square_of_each_image() -> None:
    images = torch.ones(3, 3, 12, 20)
    painted = cutout.paint_over(images, torch.tensor([6, 0, 11]), torch.tensor([10, 0, 19]), 4)
    holes = painted == 0
    assert holes.sum(dim=(1, 2, 3)).tolist() == [3 * 16, 3 * 4, 3 * 9]  # whole, and two that are cut off
    assert holes[0, :, 4:8, 8:12].all() and holes[1, :, :2, :2].all() and holes[2, :, 9:, 17:].all()
    with pytest.raises(UsageError, match="12 × 20"):
        cutout.build(size=13).on_model(network(), plan("cutout"))


def test_sam_takes_the_gradient_at_the_top_of_the_ball_and_comes_back_bit_for_bit() -> None:
    model = network()
    model(batch().inputs).square().sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    before = copy.deepcopy(model.state_dict())
    with sam.build(rho=0.05).ascended(model):
        moved = [(weight.detach() - old) for weight, old in zip(model.parameters(), _weights(before), strict=True)]
        model(batch().inputs)  # batch norm counts it
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for step, gradient in zip(moved, gradients, strict=True):
        torch.testing.assert_close(step, 0.05 * gradient / norm, atol=1e-6, rtol=1e-3)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(step.any() for step in sam.ascent([torch.tensor([math.inf, 1.0])], 0.05))


def _weights(state: dict[str, Tensor]) -> list[Tensor]:
    return [tensor for name, tensor in state.items() if name.endswith(("weight", "bias"))]


def test_both_passes_of_sam_see_the_same_dropout_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, streams = loop.forward_backward, []

    def noted(run: loop.Run, batch: Batch) -> tuple[Tensor, Tensor]:
        streams.append((run.step, torch.random.get_rng_state().numpy().tobytes()))
        return original(run, batch)

    monkeypatch.setattr(loop, "forward_backward", noted)
    tiny(tmp_path, **SETTINGS, **{"regularizers.sam": {}, "regularizers.mixup": {}})
    assert len(streams) == 2 * (max(step for step, _ in streams) + 1)
    assert streams[0::2] == streams[1::2] and len(set(streams)) == len(streams) // 2


def test_a_second_pass_that_is_not_finite_leaves_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, passes, seen = loop.forward_backward, 0, []

    def spoilt(run: loop.Run, batch: Batch) -> tuple[Tensor, Tensor]:
        nonlocal passes
        passes += 1
        if passes == 7:
            seen.append(copy.deepcopy(run.model.state_dict()))
        sums = original(run, batch)
        if passes == 8:
            next(run.model.parameters()).grad.view(-1)[0] = math.nan  # type: ignore[union-attr]
            seen.append(run.model)
        return sums

    monkeypatch.setattr(loop, "forward_backward", spoilt)
    with pytest.raises(DivergedError, match="step 4"):
        tiny(tmp_path, **{"regularizers.sam": {}})
    before, model = seen
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_swa_is_the_mean_of_the_epochs_last_weights() -> None:
    model = nn.Linear(3, 2)
    part = swa.build(start=0.5)  # of 4 epochs of 5 steps: the weights after 2, 3 and 4
    part.on_model(model, plan("swa"))
    ends = []
    for step in range(20):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        part.on_weights(model, step)
        if step + 1 in (10, 15, 20):
            ends.append(model.weight.detach().clone())
        expected = torch.stack(ends).mean(dim=0) if ends else model.weight.detach()
        assert part.averaged is not None
        torch.testing.assert_close(part.averaged.weight.detach(), expected)
    with pytest.raises(UsageError, match="fraction"):
        swa.build(start=2.0)


def test_batch_norms_statistics_are_the_mean_over_the_passes_of_the_averaged_weights() -> None:
    model = network()
    averaged = copy.deepcopy(model).requires_grad_(False)
    batches = [torch.randn(8, 3, 12, 20) for _ in range(3)]
    with torch.no_grad(), estimating_norms(averaged, model) as statistics:
        for images in batches:
            averaged(images)
    maps = [averaged[0](images) for images in batches]
    torch.testing.assert_close(statistics[0], torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(dim=0))
    torch.testing.assert_close(statistics[1], torch.stack([one.var(dim=(0, 2, 3)) for one in maps]).mean(dim=0))
    assert averaged[1].momentum == 0.1 and not averaged[1].training
    before = statistics[0].clone()
    model[1].eval()  # frozen: it keeps the statistics it was given
    with torch.no_grad(), estimating_norms(averaged, model):
        averaged(batches[0] + 1)
    assert torch.equal(averaged[1].running_mean, before)


def test_swa_evaluates_with_its_own_batch_norm_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "build", lambda name, spec, options: Small(len(spec.classes)))
    settings = {"data.options.channels": 1, "regularizers.swa.start": 0.5, "train.epochs": 4, "optimizer.lr": 0.05}
    settings = {key: value for key, value in {**settings, "model.options.hidden": 16}.items()}
    run = tiny(tmp_path, **settings)
    found = weights(run)
    assert not torch.equal(found["ema/norm.running_mean"], found["model/norm.running_mean"])
    few = tiny(tmp_path, "few", **settings, **{"regularizers.swa.norm_batches": 2})
    assert not torch.equal(weights(few)["ema/norm.running_mean"], found["ema/norm.running_mean"])
    assert torch.equal(weights(few)["ema/output.weight"], found["ema/output.weight"])


class Cut(BaseException):
    """What ends a run where a power cut would."""


@pytest.mark.parametrize(
    ("point", "passing"),
    [
        ("step", 13),
        ("eval", 8),
        *[pytest.param(point, passing, marks=pytest.mark.slow) for point, passing in (("step", 15), ("eval", 5))],
    ],
)
def test_a_run_with_swa_sam_mixup_and_noise_that_was_cut_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, passing: int
) -> None:
    monkeypatch.setattr(assembly, "build", lambda name, spec, options: Small(len(spec.classes)))
    settings = {
        "data.options.channels": 1, "train.epochs": 4, "train.checkpoint_every": 2, "train.log_every": 1,
        "regularizers.swa.start": 0.3, "regularizers.sam": {}, "regularizers.mixup": {},
        "regularizers.gradient_noise": {},
    }  # fmt: skip
    gold = tiny(tmp_path, "gold", **settings)
    passed = 0

    def cut(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed == passing and name == point:
            raise Cut

    monkeypatch.setattr(atomic_io, "hook", cut)
    with pytest.raises(Cut):
        tiny(tmp_path, **settings)
    monkeypatch.setattr(atomic_io, "hook", None)
    run = train.resume_run(RunFolder(tmp_path / "a"), changes={}, inexact=False, say=str, progress=False)
    assert same_bits(run, gold)
    timeless = [[{**line, "images_per_s": 0} for line in folder.metrics()] for folder in (run, gold)]
    assert timeless[0] == timeless[1]


def test_a_prior_about_the_start_goes_on_from_the_checkpoint_alone(tmp_path: Path) -> None:
    source = tiny(tmp_path, "source")
    settings = {
        "model.weights": str(source.path), "schedule.name": "constant", "regularizers.gaussian_prior.mean": "start",
    }  # fmt: skip
    gold = tiny(tmp_path, "gold", **settings, **{"train.epochs": 3})
    run = tiny(tmp_path, "run", **settings, **{"train.epochs": 1})
    shutil.rmtree(source.path)
    train.resume_run(run, changes={"train.epochs": 3}, inexact=False, say=str, progress=False)
    assert same_bits(run, gold)


@pytest.mark.slow
def test_two_gloo_processes_end_like_one_where_all_ranks_do_the_same(tmp_path: Path) -> None:
    names = ("gradient_noise", "gaussian_prior", "max_norm", "orthogonal", "sam", "swa")
    one = tiny(tmp_path, "one", **{f"regularizers.{name}": {} for name in names})
    two = in_two_processes(one)
    first, second = weights(one), weights(two)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    for ours, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
        assert ours["train/log_prior"] == pytest.approx(theirs["train/log_prior"], rel=1e-5)
