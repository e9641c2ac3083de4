"""What speed.py counts, against a count by hand; what a comment says is faster is faster."""

import platform
import timeit

import pytest
import torch

import speed


def test_products_of_an_update_of_sac_counted_by_hand():
    """Multiplications for each of the 256 rows of a batch of Hopper-v4's."""
    obs_dim, action_dim, hidden = 11, 3, 256
    policy = obs_dim * hidden + hidden**2 + 2 * hidden * action_dim
    critics = 2 * ((obs_dim + action_dim) * hidden + hidden**2 + hidden)
    soft_target = policy + critics
    back_to_weights_and_to_layers = critics + 2 * (hidden**2 + hidden)
    q_loss = critics + back_to_weights_and_to_layers
    back_to_action = 2 * (hidden + hidden**2 + (obs_dim + action_dim) * hidden)
    back_through_policy = policy + policy - obs_dim * hidden
    policy_loss = policy + critics + back_to_action + back_through_policy
    by_hand = 2 * 256 * (soft_target + q_loss + policy_loss) / 1e9
    assert speed.gflop_of_an_update("sac_baseline", "Hopper-v4", []) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64 only")
def test_few_outputs_are_faster_with_the_transpose_in_memory(longest):
    """`Linear` says so: 24 instead of 80 microseconds for three outputs."""
    x, layer, plain = torch.randn(1, 256, 256), longest.Linear(1, 256, 3), longest.Linear(1, 256, 3)
    plain.weight = torch.nn.Parameter(torch.zeros(1, 256, 3))
    with torch.no_grad():
        best = [min(timeit.repeat(lambda f=f: f(x), number=100, repeat=10)) for f in (layer, plain)]
    assert layer.weight.stride() == (768, 1, 256) and best[0] < 0.7 * best[1]
