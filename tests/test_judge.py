"""The judge of drawn images: known values first, then behaviour, then faults."""

from __future__ import annotations

import pytest
import torch

from vqvae_lib import ImageDataset
from vqvae_lib.judge import (
    Classifier,
    classify,
    frechet_distance,
    nearest_images,
    precision_recall,
    sharpness,
    train_classifier,
)


def gaussian(n: int, mean: torch.Tensor, root: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """n vectors whose sample mean and covariance are exactly mean and root root^T."""
    noise = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise -= noise.mean(0)
    whitened = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T
    return mean + whitened @ root.T


def test_the_distance_of_gaussians_with_one_basis_is_the_closed_form():
    """For covariances diag(a^2) and diag(b^2): |m - n|^2 + sum (a - b)^2."""
    a, b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 0.1]).double()
    shift = torch.tensor([1.0, -2.0, 0.0]).double()
    one, other = gaussian(50, torch.zeros(3).double(), a.diag()), gaussian(70, shift, b.diag(), seed=1)
    assert frechet_distance(one, other) == pytest.approx(float(shift.square().sum() + (a - b).square().sum()), rel=1e-9)


def test_the_distance_of_any_gaussians_is_that_of_the_matrix_root():
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    zero = torch.zeros(4).double()
    c1, c2 = first @ first.T, second @ second.T
    values, vectors = torch.linalg.eig(c1 @ c2)  # the root of the product itself, in complex numbers
    trace = torch.diag(vectors @ values.sqrt().diag() @ torch.linalg.inv(vectors)).sum().real
    expected = float(c1.trace() + c2.trace() - 2 * trace)
    assert frechet_distance(gaussian(60, zero, first), gaussian(80, zero, second, 1)) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_set_has_no_distance_from_itself_and_the_order_does_not_matter():
    one, other = gaussian(30, torch.zeros(2).double(), torch.eye(2).double()), torch.rand(40, 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (5,)])
def test_too_few_features_are_named(shape):
    with pytest.raises(ValueError, match=rf"other is \({shape[0]},.*2 or more"):
        frechet_distance(torch.rand(5, 3), torch.rand(shape))


def test_precision_and_recall_at_their_limits():
    near = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    assert precision_recall(near, near) == (1, 1)
    assert precision_recall(near, near + 1000) == (0, 0)
    # What is drawn is real, but only half of what is real is drawn.
    two_places = torch.cat([near, near + 1000])
    precision, recall = precision_recall(two_places, near)
    assert precision == 1
    assert recall == 0.5
    precision, recall = precision_recall(near, two_places)
    assert (precision, recall) == (0.5, 1)


def test_a_ball_reaches_to_the_neighbour_asked_for():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # first neighbours at 1, 1 and 2; second ones at 3, 2 and 3
    drawn = torch.tensor([[4.5], [-0.5], [5.5], [9.0]])
    assert precision_recall(real, drawn, neighbours=1)[0] == 0.5
    assert precision_recall(real, drawn, neighbours=2)[0] == 0.75


def test_sharpness_knows_waves():
    wave = torch.arange(28).float()
    slow = torch.sin(2 * torch.pi * wave * 2 / 28)[None, None, None].expand(1, 1, 28, 28)
    fast = torch.sin(2 * torch.pi * wave * 10 / 28)[None, None, None].expand(1, 1, 28, 28)
    assert sharpness(slow) == pytest.approx(0, abs=1e-6)
    assert sharpness(fast) == pytest.approx(1, abs=1e-6)
    assert sharpness((slow + 3 * fast) + 0.7) == pytest.approx(0.9, abs=1e-5)  # energies 1 and 9; the mean has none


def test_blur_lowers_sharpness(digits):
    images = digits.floats()
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert sharpness(blurred) < sharpness(images) / 2
    grain = 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert sharpness(images + grain) > sharpness(images)
    # Grain alone: the share of the frequencies that lie outside a circle of radius 1/4 in a square of side 1.
    assert sharpness(grain) == pytest.approx(1 - torch.pi / 16, abs=0.01)


def test_the_nearest_image_is_found(digits):
    images = digits.floats(slice(10, 20))
    places, distance = nearest_images(images + 0.01, digits)
    same = (digits.floats()[:, None] == digits.floats(places)[None]).flatten(2).all(2)  # the dataset may have twins
    assert all(same[10 + i, i] for i in range(10))
    torch.testing.assert_close(distance, torch.full((10,), 1e-4), rtol=1e-3, atol=1e-6)


def test_nearest_agrees_with_brute_force(digits):
    images = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    places, distance = nearest_images(images, digits)
    every = (images.double()[:, None] - digits.floats().double()[None]).square().mean(dim=(2, 3, 4))
    assert torch.equal(places, every.argmin(1))
    torch.testing.assert_close(distance, every.amin(1).float())


def test_the_classifier_learns_and_is_a_function_of_its_seed(digits):
    one, other = (train_classifier(digits, steps=30, seed=4) for _ in range(2))
    assert not one.training
    features, found = classify(one, digits.floats())
    assert features.shape == (400, 64)
    assert torch.equal(features, classify(other, digits.floats())[0])
    assert (found == digits.labels).float().mean() > 0.6  # 1 in 10 would be chance
    assert torch.equal(found, one.head(features).argmax(1))


def test_a_classifiers_step_is_cross_entropy_and_accuracy():
    model = Classifier(seed=1)
    x, labels = torch.rand(6, 1, 28, 28), torch.arange(6)
    with torch.no_grad():
        numbers = model.summarise(model.training_step(x, labels))
        log_p = model(x).log_softmax(1)
    assert numbers["total_loss"] == pytest.approx(float(-log_p[range(6), labels].mean()), rel=1e-5)
    assert numbers["accuracy"] == pytest.approx(float((log_p.argmax(1) == labels).float().mean()))


def test_images_without_contrast_have_no_sharpness():
    assert sharpness(torch.full((2, 1, 28, 28), 0.5)) == 0


def test_one_feature_has_a_distance_too():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [9.0]])
    # means 1 and 6, standard deviations sqrt 2 and 3 sqrt 2
    assert frechet_distance(a, b) == pytest.approx(5**2 + (3 * 2**0.5 - 2**0.5) ** 2)


@pytest.mark.parametrize("name", ["real", "drawn"])
def test_too_few_vectors_have_no_neighbours(name):
    sets = {"real": torch.rand(9, 2), "drawn": torch.rand(9, 2), name: torch.rand(3, 2)}
    with pytest.raises(ValueError, match=f"{name} = 3 .*more than neighbours = 3"):
        precision_recall(**sets)


def test_judging_leaves_the_mode_as_it_was():
    model = Classifier().train()
    classify(model, torch.rand(3, 1, 28, 28))
    assert model.training


def test_labels_do_not_matter_to_nearest_images():
    images = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    for labels in (torch.zeros(5, dtype=torch.long), torch.arange(5).flip(0)):
        among = ImageDataset(images, labels, "tiny")
        assert nearest_images(among.floats(), among)[0].tolist() == list(range(5))
