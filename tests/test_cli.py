"""The command line as a user meets it, and agents in a user's own program."""

import json
import re
import shlex
import time
from itertools import pairwise
from types import SimpleNamespace

import envs  # noqa: F401  (registers them)
import gymnasium as gym
import numpy as np
import odd  # noqa: F401
import pytest
from conftest import ROOT, SAFE, cost_flags, flags, make_args, rows_of

import sac_baseline

HPO = "sac_hpo_continuous"
SMALL = dict(total_timesteps=60, learning_starts=40, batch_size=8, eval_frequency=30, eval_episodes=2)
TINY = flags(**SMALL)
TABLE_II = {
    "SAC-HPO": [],
    "Baseline-1": ["--explore", "conventional", "--train", "conventional"],
    "Baseline-2": ["--explore", "conventional", "--train", "gaussian"],
    "Baseline-3": ["--explore", "gaussian", "--train", "proposed"],
    "base policy": ["--explore", "gaussian", "--train", "gaussian"],
    "no randomness": ["--momentum-std-train", "0", "--momentum-std-explore", "0"],
    "drift": ["--explore", "drift", "--train", "drift"],
    "no state": ["--no-leapfrog-state", "--autotune"],
    "mixed precision": ["--mixed-precision"],
}


@pytest.mark.parametrize("words", TABLE_II.values(), ids=TABLE_II)
def test_rows_of_table_ii_by_their_flags(words, tmp_path, main):
    ended = main(HPO, *TINY, "--run-dir", tmp_path / "run", *words)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    assert [row["global_step"] for row in rows_of(tmp_path / "run")] == ["30", "60"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    given = {word[2:].replace("-", "_"): value for word, value in pairwise(words)}
    assert all(str(config["args"][k]).startswith(v) for k, v in given.items() if "--" not in v)
    assert config["args"]["env_id"] == "Hopper-v4" and config["args"]["leapfrog_steps"] == 2
    (start,) = config["starts"]
    assert start["step"] == 0 and start["versions"]["torch"] and start["processor"]
    assert bool(start["commit"]) == (ROOT / ".git").exists()  # not in a copy without history


def test_table_i(script, capsys):
    """A row is chosen by the task's family or by --table-row; outside the table HalfCheetah's, and a line
    says so; what is given by hand wins."""
    rows = {"Hopper-v5": "Hopper", "envs:OneStep-v0": "HalfCheetah", "Humanoid": "Humanoid"}
    for env_id, row in rows.items():
        args = script.resolve(make_args(script, env_id=env_id))
        assert tuple(getattr(args, name) for name in script.SETTINGS) == script.TABLE_I[row]
        assert ("as in HalfCheetah's row of Table I" in capsys.readouterr().out) == ("envs" in env_id)
    args = script.resolve(make_args(script, table_row="HumanoidBulletEnv", alpha=0.7))
    found = [getattr(args, name) for name in script.SETTINGS]
    assert found == [0.7, *script.TABLE_I["HumanoidBulletEnv"][1:]]
    said = capsys.readouterr().out
    assert ("as in HumanoidBulletEnv's row" in said) == (len(script.SETTINGS) > 1) and "alpha," not in said
    given = dict(zip(script.SETTINGS, script.TABLE_I["Ant"], strict=True))
    script.resolve(make_args(script, env_id="envs:OneStep-v0", **given))
    assert not capsys.readouterr().out


def test_env_kwargs_reach_the_environment(tmp_path, main):
    """A Hopper that may fall plays on to its 1,000 steps, in training, in evaluation and when played."""
    words = [*TINY, "--eval-episodes", 1, "--run-dir", tmp_path, "--env-id", "Hopper-v4"]
    ended = main("sac_baseline", *words, "--env-kwargs", '{"terminate_when_unhealthy": false}')
    assert ended.returncode == 0 and [row["length_mean"] for row in rows_of(tmp_path)] == ["1000.0"] * 2


@pytest.mark.parametrize("obs, size", [("dict", 5), ("image", 60), ("grid", 6)])
def test_observations_are_flattened(obs, size, tmp_path, either):
    changes = {**SMALL, "env_id": "odd:Odd-v0", "env_kwargs": json.dumps({"obs": obs})}
    run = either.train(make_args(either, run_dir=str(tmp_path), **changes))
    assert either.read(run / "seed_1" / "agent_60.pt")["obs_dim"] == size
    rows = either.read(run / "checkpoint.pt")["buffer"]["rows"][0]
    assert size != 5 or {tuple(row[2:5].tolist()) for row in rows} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_is_printed_without_a_terminal(script, tmp_path, main, quick, seeds):
    """The run, its arguments, a line per evaluation, where the agents are and how to play them: that works,
    and gives the returns that eval.csv has."""
    name, run = script.__name__, tmp_path / "a run"
    words = [*TINY, *cost_flags(name), "--run-dir", run, "--seed", 5, "--num-seeds", seeds]
    ended = main(name, *words, "--env-id", "Hopper-v4")
    assert ended.returncode == 0 and ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0] == f"{run}: steps 0 to 60 on cpu, with random actions up to 40"
    expected = [f"seed_{seed}, step {step}" for step in (30, 60) for seed in range(5, 5 + seeds)]
    assert [line.split(":")[0] for line in lines[1:-2]] == expected
    assert all(re.search(r": return -?[\d.]+ \+- [\d.]+.*, [\d.]+ steps/s$", line) for line in lines[1:-2])
    assert lines[-2] == f"trained: {run}" and lines[-1].startswith(f"play: python {name}.py --evaluate ")
    folders = [f"seed_{seed}" for seed in range(5, 5 + seeds)]
    assert {path.name for path in run.iterdir()} == {"checkpoint.pt", "config.json", "lock", *folders}
    header = (run / "seed_5" / "eval.csv").read_text().splitlines()[0].split(",")
    assert header[:5] == "global_step return_mean return_std return_0 return_1".split()
    costs = "cost_mean discounted_cost_mean j_c_mean share_over_limit lambda training_cost training_episodes"
    costs = f"{costs} training_episodes_over_limit".split() if name in SAFE else []
    leapfrog = "leapfrog_steps_mean accepted_at_first never_accepted".split() * (name == "sac_hpo_safe")
    assert header[5:] == ["length_mean", "q_bias", *leapfrog, *costs, "steps_per_second"]

    played = shlex.split(lines[-1].removeprefix("play: python "))
    for words, of in (played[1:], range(5, 5 + seeds)), (["--evaluate", run / "seed_5" / "agent_60.pt"], [5]):
        ended = main(name, *words)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        found = [line for line in ended.stdout.splitlines() if ".pt: returns " in line]
        for line, seed in zip(found, of, strict=True):
            row = {key: float(value) for key, value in rows_of(run, seed)[-1].items()}
            numbers = f"{row['return_0']:.1f} {row['return_1']:.1f}, mean {row['return_mean']:.1f}"
            assert line == f"{run}/seed_{seed}/agent_60.pt: returns {numbers}"


def test_the_newest_agent_of_each_seed_is_played(tmp_path, main, quick):
    """The newest by number. Arguments that are not given are as in the agent's run."""
    words = [*TINY, "--eval-frequency", 1000, "--checkpoint-frequency", 45, "--total-timesteps", 135]
    words += ["--env-id", "envs:OneStep-v0", "--run-dir", tmp_path, "--num-seeds", 2]
    assert main("sac_baseline", *words).returncode == 0
    assert len(list(tmp_path.rglob("agent_*.pt"))) == 6
    ended = main("sac_baseline", "--evaluate", tmp_path, "--eval-episodes", 3)
    played = [line for line in ended.stdout.splitlines() if "returns" in line]
    expected = [f"{tmp_path}/seed_{seed}/agent_135.pt: returns 1.0 1.0 1.0, mean 1.0" for seed in (1, 2)]
    assert played == expected


def test_a_line_at_least_every_other_minute(tmp_path, capsys, monkeypatch):
    """By a clock that goes on by 50 seconds every hundred steps."""
    now = iter(range(0, 10**6, 50))
    clock = SimpleNamespace(perf_counter=lambda: next(now), strftime=time.strftime, time_ns=time.time_ns)
    monkeypatch.setattr(sac_baseline, "time", clock)
    changes = dict(total_timesteps=1000, learning_starts=2000, eval_episodes=1, env_id="envs:TwoSteps-v0")
    sac_baseline.train(make_args(sac_baseline, run_dir=str(tmp_path), **changes))
    line = r"step (\d+): last return in training 1.0, [\d.]+ steps/s"
    steps = [int(found[1]) for found in re.finditer(line, capsys.readouterr().out)]
    assert len(steps) >= 3 and all(0 < b - a <= 300 for a, b in pairwise([0, *steps, 1000]))


def test_films_of_pendulum(tmp_path, main, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for needed in ("pygame", "moviepy"):
        pytest.importorskip(needed)
    from imageio_ffmpeg import count_frames_and_secs

    words = [*TINY, "--env-id", "Pendulum-v1", "--run-dir", tmp_path, "--eval-frequency", 60]
    ended = main("sac_baseline", *words, "--capture-video")
    if ended.returncode == 2 and "--capture-video" in ended.stderr:
        pytest.skip(f"cannot draw here: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    (film,) = tmp_path.rglob("*.mp4")
    film.unlink()
    ended = main("sac_baseline", "--evaluate", tmp_path, "--capture-video")
    assert ended.returncode == 0 and f"film: {film}" in ended.stdout
    assert count_frames_and_secs(str(film))[0] >= 200
    monkeypatch.setattr("gymnasium.envs.mujoco.MujocoEnv.render", lambda env: np.zeros((2, 2, 3), np.uint8))
    env = sac_baseline.make_env(sac_baseline.Args("HalfCheetah-v4"), tmp_path / "film")
    assert env.unwrapped.mujoco_renderer.camera_id == 0  # which follows the robot


@pytest.mark.parametrize("env_id", ["Hopper-v4", "envs:Grid-v0"])
def test_an_agent_in_a_users_own_program(script, tmp_path, env_id):
    """It plays what the evaluation played; sampled it plays something else; any number at a time."""
    free = dict(cost="torque", cost_limit=1e6) if script.__name__ in SAFE else {}  # accepted at once
    settings = {**SMALL, **free, "env_id": env_id, "seed": 3, "run_dir": str(tmp_path)}
    script.train(make_args(script, **settings))
    policy = script.load_agent(str(tmp_path / "seed_3" / "agent_60.pt"))
    env, seen = gym.make(env_id), []
    for i, seed in enumerate(np.random.default_rng([3, 60]).integers(2**31, size=2).tolist()):
        obs, first, done, total = env.reset(seed=seed)[0], None, False, 0.0
        while not done:
            flat = obs.flatten()
            first = flat if first is None else first
            seen.append((flat, first)[: 2 if script.__name__ == "sac_hpo_safe" else 1])
            obs, reward, terminated, truncated, _ = env.step(policy(*seen[-1]))
            done, total = terminated or truncated, total + reward
        assert total == pytest.approx(float(rows_of(tmp_path, 3)[-1][f"return_{i}"]), rel=1e-3)
    given, size = [np.stack(part) for part in zip(*seen, strict=True)], seen[0][0].size
    actions = policy(*given)
    assert actions.shape == (len(seen), *env.action_space.shape) and actions.dtype == env.action_space.dtype
    np.testing.assert_allclose(actions[3], policy(*seen[3]), rtol=1e-4, atol=1e-5)
    samples = [policy(*given, deterministic=False) for _ in range(2)]
    assert not np.allclose(*samples) and not np.allclose(samples[0], actions)
    assert all(env.action_space.contains(action) for action in (*samples[0], *actions))
    for wrong in (np.zeros(size + 1), np.zeros((2, size - 1)), np.zeros((1, 1, size)), np.zeros(())):
        with pytest.raises(ValueError, match=rf"must be \({size},\) or \(N, {size}\), not "):
            policy(*[wrong] * len(given))
