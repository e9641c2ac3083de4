"""What speed.py counts, against a count by hand; what a comment says is faster is faster."""

import csv
import platform
import timeit
from types import SimpleNamespace

import pytest
import torch
from conftest import SCRIPTS

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
    assert speed.gflop_of_an_update("sac_baseline", "Hopper-v4") == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64 only")
def test_few_outputs_are_faster_with_the_transpose_in_memory(longest):
    """`Linear` says so: 24 instead of 80 microseconds for three outputs."""
    x, layer, plain = torch.randn(1, 256, 256), longest.Linear(1, 256, 3), longest.Linear(1, 256, 3)
    plain.weight = torch.nn.Parameter(torch.zeros(1, 256, 3))
    with torch.no_grad():
        best = [min(timeit.repeat(lambda f=f: f(x), number=100, repeat=10)) for f in (layer, plain)]
    assert layer.weight.stride() == (768, 1, 256) and best[0] < 0.7 * best[1]


def test_a_row_of_the_table():
    """Medians over rounds, of agent-steps; a ratio is of what was measured in the same round."""
    measured = {("T", "SB3 SAC", 1, 2): [10.0, 20.0, 10.0], ("T", "sac_nf", 5, 2): [20.0, 30.0, 25.0]}
    row = speed.row_of(("T", "sac_nf", 5, 2), measured, 100.0, None)
    assert (row["steps_per_second"], row["agent_steps_per_second"], row["rounds"]) == (5.0, 25.0, 3)
    assert (row["lowest"], row["highest"], row["times_sb3"]) == (20.0, 30.0, 2.0)
    assert row["gibibytes"] == row["share_of_limit"] == ""
    cases = {key for key, _ in speed.what_to_measure(SimpleNamespace(sb3_python="python"))}
    assert {key[1:3] for key in cases} >= {(name, seeds) for name in SCRIPTS for seeds in (1, 5, 20)}


def test_a_round_that_is_broken_off_leaves_those_before_it(monkeypatch, tmp_path):
    calls = []

    def measured(script, task, threads, steps, seeds):
        calls.append(script)
        if len(calls) > len(cases):
            raise KeyboardInterrupt
        return 10.0

    monkeypatch.setattr(speed, "speed_of_ours", measured)
    for name in "gflop_of_an_update", "gibibytes_with_a_full_buffer", "seconds_to_the_first_update":
        monkeypatch.setattr(speed, name, lambda *case: 1.0)
    monkeypatch.setattr("sys.argv", ["speed.py", "--out", str(tmp_path / "speed.csv")])
    cases = speed.what_to_measure(SimpleNamespace(sb3_python=None))
    with pytest.raises(KeyboardInterrupt):
        speed.main()
    with open(tmp_path / "speed.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["rounds"] for row in rows] == ["1"] * len(cases)
