import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios import augment_slowly
from zoo.data.augmentation import Augmentation, Moves
from zoo.seeds import rng_for


@settings(deadline=None, max_examples=25)
@given(
    flip=st.booleans(),
    translate=st.integers(0, 4),
    cutout=st.integers(0, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(2, 6), st.integers(2, 6)),
    seed=st.integers(0, 2**32),
)
def test_images_are_flipped_shifted_and_cut_as_a_plain_loop_does_it(flip, translate, cutout, shape, seed):
    augmentation, rng = Augmentation(flip=flip, translate=translate, cutout=cutout), np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal(shape))
    each = [augmentation.draw(rng, shape[1], *shape[-2:]) for _ in range(shape[0])]
    slow = torch.stack([augment_slowly(augmentation, images, moves) for images, moves in zip(x, each, strict=True)])
    assert torch.equal(augmentation(x, Moves.stack(each)), slow)


def test_an_image_is_augmented_as_computed_by_hand():
    image = torch.arange(1.0, 10).view(1, 1, 1, 3, 3)
    shift_left_down = Moves(torch.tensor([[True]]), torch.tensor([[[1, -1]]]), torch.tensor([[[2, 0]]]))
    found = Augmentation(flip=True, translate=1, cutout=1)(image, shift_left_down)
    assert found.squeeze().tolist() == [[0, 0, 0], [2, 1, 0], [0, 4, 0]]


def test_without_any_move_images_are_unchanged():
    augmentation = Augmentation()
    x = torch.randn(2, 5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    moves = Moves.stack([augmentation.draw(np.random.default_rng(k), 5, 6, 7) for k in range(2)])
    assert torch.equal(augmentation(x, moves), x)


def test_draws_cover_all_moves_evenly():
    moves = Augmentation(flip=True, translate=2, cutout=3).draw(np.random.default_rng(0), 20_000, 4, 6)
    assert moves.flip.double().mean() == pytest.approx(0.5, abs=0.02)
    expected = [
        (moves.shift[:, 0] + 2, 5),
        (moves.shift[:, 1] + 2, 5),
        (moves.centre[:, 0], 4),
        (moves.centre[:, 1], 6),
    ]
    for values, count in expected:
        share = values.bincount() / len(values)
        torch.testing.assert_close(share, torch.full((count,), 1 / count), rtol=0, atol=0.02)


def test_each_image_of_each_pair_and_epoch_has_its_own_moves():
    augmentation = Augmentation(flip=True, translate=2)
    names = [(0, 0), (0, 1), (1, 0), (0, 0)]
    a, b, c, again = (augmentation.draw(rng_for(0, "augmentation", *name), 50, 8, 8) for name in names)
    assert all(torch.equal(*parts) for parts in zip(a, again, strict=True))
    assert not torch.equal(a.shift, b.shift)
    assert not torch.equal(a.shift, c.shift)
    assert len(a.shift.unique(dim=0)) > 10
