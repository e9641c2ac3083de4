"""What speed.py counts, against a count by hand; and results/speed.csv is of the updates as they are now."""

import csv

import pytest
import speed
from conftest import ROOT


def test_products_of_an_update_of_sac_counted_by_hand():
    """Multiplications for each of the 256 rows of a batch of Hopper-v4's."""
    obs_dim, action_dim, hidden = 11, 3, 256
    policy = obs_dim * hidden + hidden**2 + 2 * hidden * action_dim
    critics = 2 * ((obs_dim + action_dim) * hidden + hidden**2 + hidden)
    soft_target = policy + critics
    back_to_weights_and_to_layers = critics + 2 * (hidden**2 + hidden)
    q_loss = critics + back_to_weights_and_to_layers
    state_parts = 2 * obs_dim * hidden
    rest_of_critics = critics - state_parts
    back_to_action = hidden**2 + action_dim * hidden  # through one critic a row
    back_through_policy = policy + policy - obs_dim * hidden
    policy_loss = policy + state_parts + rest_of_critics + back_to_action + back_through_policy
    by_hand = 2 * 256 * (soft_target + q_loss + policy_loss) / 1e9
    assert speed.gflop_of_an_update("sac_baseline", "Hopper-v4", []) == pytest.approx(by_hand, rel=1e-9)


def test_the_committed_table_counts_the_present_update():
    for row in csv.DictReader((ROOT / "results" / "speed.csv").read_text().splitlines()):
        if row["gflop_per_update"]:
            flags = dict(speed.CASES[row["task"]][1])[row["system"]]
            gflop = speed.gflop_of_an_update(row["system"], row["task"], flags)
            assert gflop == pytest.approx(float(row["gflop_per_update"]), abs=0.0005), "run: ./benchmark.sh speed --sb3"
