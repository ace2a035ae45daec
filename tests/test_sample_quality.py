"""Sample-quality metrics: known values first, then behavior, then faults."""

import pytest
import torch
import torch.nn.functional as F
from helpers import normal

from vqvae_book import sample_quality as quality
from vqvae_book.extras import draw_scenes
from vqvae_book.sample_quality import frechet_distance, precision_recall, sharpness


def gaussian(n: int, mean: torch.Tensor, root: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Exactly so are the sample mean and the covariance, root root^T."""
    noise = normal(n, len(mean), seed=seed, dtype=torch.float64)
    noise -= noise.mean(0)
    return mean + noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T @ root.T


def test_the_distance_of_gaussians_with_one_basis_is_the_closed_form():
    """For covariances diag(a^2) and diag(b^2): |m - n|^2 + sum (a - b)^2."""
    a, b, shift = torch.tensor([[1.0, 2.0, 0.5], [3.0, 2.0, 0.1], [1.0, -2.0, 0.0]]).double()
    one, other = gaussian(50, 0 * shift, a.diag()), gaussian(70, shift, b.diag(), seed=1)
    expected = float(shift.square().sum() + (a - b).square().sum())
    found = [frechet_distance(*sets) for sets in ((one, other), (other, one), (one, one))]
    assert found == pytest.approx([expected, expected, 0], rel=1e-9, abs=1e-9)
    # One feature: means 1 and 6, standard deviations sqrt 2 and 3 sqrt 2.
    found = frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [9.0]]))
    assert found == pytest.approx(5**2 + (3 * 2**0.5 - 2**0.5) ** 2)


def test_the_distance_of_any_gaussians_is_that_of_the_matrix_root():
    first, second = (normal(4, 4, seed=seed, dtype=torch.float64) for seed in (3, 4))
    c1, c2 = first @ first.T, second @ second.T
    values, vectors = torch.linalg.eig(c1 @ c2)  # the root of the product itself, in complex numbers
    trace = torch.diag(vectors @ values.sqrt().diag() @ torch.linalg.inv(vectors)).sum().real
    zero = torch.zeros(4).double()
    for shape in ((1, 4), (0, 4), (5,)):
        with pytest.raises(ValueError, match=r"other = \("):
            frechet_distance(first, torch.rand(shape))
    found = frechet_distance(gaussian(60, zero, first), gaussian(80, zero, second, 1))
    assert found == pytest.approx(float(c1.trace() + c2.trace() - 2 * trace), rel=1e-6)


def test_precision_and_recall_at_their_limits_and_between():
    near = normal(100, 2)
    far = near + 1000
    both = torch.cat([near, far])  # where it is real, all that is drawn is real, but half of what is real is not drawn
    found = [precision_recall(*sets) for sets in ((near, near), (near, far), (both, near), (near, both))]
    assert found == [(1, 1), (0, 0), (1, 0.5), (0.5, 1)]
    real = torch.tensor([[0.0], [1.0], [3.0]])  # first neighbors at 1, 1 and 2; second ones at 3, 2 and 3
    drawn = torch.tensor([[4.5], [-0.5], [5.5], [9.0]])
    assert [precision_recall(real, drawn, neighbors=k)[0] for k in (1, 2)] == [0.5, 0.75]
    for few, many, name in ((3, 9, "real"), (9, 3, "drawn")):
        with pytest.raises(ValueError, match=f"{name} = 3"):
            precision_recall(torch.rand(few, 2), torch.rand(many, 2))


def test_sharpness_knows_waves_blur_and_grain(digits):
    slow, fast = (torch.sin(2 * torch.pi * torch.arange(28) * torch.ones(1, 1, 28, 1) * n / 28) for n in (2, 10))
    shares = [sharpness(x) for x in (slow, fast, (slow + 3 * fast) + 0.7, 0 * slow + 0.5)]
    assert shares == pytest.approx([0, 1, 0.9, 0], abs=1e-5)  # energies 1 and 9; the mean has none
    images, grain = digits.floats(), 0.1 * normal(400, 1, 28, 28)
    assert sharpness(F.avg_pool2d(images, 3, stride=1, padding=1)) < sharpness(images) / 2
    assert sharpness(images + grain) > sharpness(images)
    # Grain alone: the share of the frequencies that lie outside a circle of radius 1/4 in a square of side 1.
    assert sharpness(grain) == pytest.approx(1 - torch.pi / 16, abs=0.01)


def test_nearest_agrees_with_brute_force(digits):
    images = torch.cat([normal(7, 1, 28, 28).clamp(0, 1), digits.floats([3, 5])])
    places, distance = quality.nearest_images(images, digits)
    every = (images.double()[:, None] - digits.floats().double()[None]).square().mean(dim=(2, 3, 4))
    assert torch.equal(places, every.argmin(1))
    torch.testing.assert_close(distance, every.amin(1).float())


def test_the_classifier_learns_and_is_a_function_of_its_seed(digits):
    some = digits.subset(slice(128))
    x, labels = some.floats(), some.labels
    one, two, three = (quality.train_classifier(some, steps=n, seed=4) for n in (12, 1, 1))
    assert torch.equal(quality.classify(two, x)[0], quality.classify(three, x)[0])
    features, found = quality.classify(one.train(), x)
    assert one.training and torch.equal(found, one.head(features).argmax(1))
    accuracy = float((found == labels).float().mean())
    assert accuracy > 0.35  # 1 in 10 would be chance
    with torch.no_grad():
        numbers, log_p = one.summarize(one.training_step(x, labels)), one(x).log_softmax(1)
    loss = float(-log_p[range(128), labels].mean())
    assert numbers == pytest.approx({"total_loss": loss, "accuracy": accuracy}, rel=1e-5)


def test_a_classifier_fits_the_size_and_the_channels_of_its_images():
    scenes = draw_scenes(128, seed=0, size=16)
    model = quality.train_classifier(scenes, steps=1, widths=(4, 6, 8))
    features, found = quality.classify(model, scenes.floats())
    assert (features.shape, model.net[-2].in_features, found.shape) == ((128, 64), 8 * 2 * 2, (128,))
