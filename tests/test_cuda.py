"""On a GPU: a CUDA graph does what the same functions do eagerly, runs repeat and resume bit for bit.

Skipped without one; then only what they compare is run. Whoever has one runs `pytest -m cuda`.
"""

import inspect

import pytest
import torch
from conftest import agent_of, call, cost_flags, make_args, resume, rows_of, same


def on_a_gpu(test):
    reason = "needs a GPU: pytest -m cuda where there is one"
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))


OBS_DIM, ACTION_DIM, SEEDS = 11, 3, 3
SMALL = dict(
    env_id="Hopper-v4", learning_starts=100, eval_frequency=200, eval_episodes=2, checkpoint_frequency=200
)


def system(module, graph: bool, device="cuda", **changes):
    """What `train` puts together, with a buffer of random rows: acting, an update, all that they change."""
    device = torch.device(device)
    args = module.resolve(make_args(module, num_seeds=SEEDS, **changes))
    generators, noise_generators = module.make_generators(range(SEEDS), device)
    agent = module.Agent(SEEDS, OBS_DIM, ACTION_DIM, args)
    module.draw_weights(agent, generators)
    optimizers = module.make_optimizers(agent.to(device), args)
    adam = [value for o in optimizers.values() for state in o.state.values() for value in state.values()]
    buffer = module.ReplayBuffer(SEEDS, 1000, OBS_DIM, ACTION_DIM, device)
    buffer.data.copy_(torch.randn(buffer.data.shape, generator=torch.Generator().manual_seed(0)))
    terminated = buffer.data[..., 2 * OBS_DIM + ACTION_DIM + 1]
    terminated.copy_(terminated > 1.0)
    buffer.added, _ = 1000, buffer.filled.fill_(1000)
    noise = module.Noise(noise_generators, agent.policy, args.batch_size, ACTION_DIM)
    obs = torch.randn(SEEDS, 1, OBS_DIM, generator=torch.Generator().manual_seed(1)).to(device)

    def act():
        now = noise.now(noise.to_act).transpose(0, 1)
        if "first_obs" not in inspect.signature(agent.policy.act).parameters:
            return agent.policy.act(obs, now)
        action, accepted_at = agent.policy.act(obs, now, obs.flip(0))
        return torch.cat([action, accepted_at.unsqueeze(-1)], dim=-1)

    def learn():
        batch = buffer.sample(noise.now(noise.rows))
        return module.update(agent, optimizers, batch, noise.now(noise.to_update).transpose(0, 1), args)

    changed = {f"agent {name}": value for name, value in agent.state_dict().items()}
    changed |= {f"adam {number}": value for number, value in enumerate(adam)}
    if graph:
        before = {name: value.clone() for name, value in changed.items()}
        act, learn = (module.capture(function, list(changed.values())) for function in (act, learn))
        assert same(before, changed)  # the calls before the capture leave no trace
    return act, learn, noise, changed


def test_what_is_compared_runs_on_a_cpu(script):
    act, learn, noise, changed = system(script, graph=True, device="cpu")
    before = {name: value.clone() for name, value in changed.items()}
    noise.advance()
    action, logs = act(), learn()
    assert action[..., :ACTION_DIM].shape == (SEEDS, 1, ACTION_DIM) and torch.isfinite(action).all()
    assert all(torch.isfinite(value).all() for value in (changed | logs).values())
    assert not same(before, changed)


@on_a_gpu
@pytest.mark.parametrize(
    "changes", [{}, {"autotune": True}, {"momentum_in_target": True}, {"coordinates": "action"}]
)
def test_a_graph_does_what_eager_execution_does(script, changes):
    if not all(hasattr(script.Args, name) for name in changes):
        pytest.skip("not a flag of this script")
    ends = []
    for graph in (False, True):
        act, learn, noise, changed = system(script, graph, **changes)
        seen = {}
        for step in range(50):
            noise.advance()
            action, logs = act(), learn()
            if step in (0, 49):
                seen |= {f"{step} action": action.clone()}
                seen |= {f"{step} {name}": value.clone() for name, value in (logs | changed).items()}
        seen |= {f"generator {i}": g.get_state() for i, g in enumerate(noise.generators)}
        ends.append(seen)
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        if name.endswith("action"):  # for a batch of one, cuBLAS may choose another kernel on another stream
            torch.testing.assert_close(value, ends[1][name], rtol=0, atol=1e-5)
        else:
            assert torch.equal(value, ends[1][name]), name
    assert all(torch.isfinite(value).all() for value in ends[0].values())
    moved = [
        name
        for name in ends[0]
        if name.startswith("0 agent")
        and not torch.equal(ends[0][name], ends[0][name.replace("0 ", "49 ", 1)])
    ]
    assert len(moved) > 10


@on_a_gpu
def test_seeds_on_a_gpu_are_independent(script):
    """What belongs to seed 1 changes nothing of the others."""
    ends = []
    for poisoned in (False, True):
        _, learn, noise, changed = system(script, graph=True)
        if poisoned:
            for value in changed.values():
                if value.dim():
                    value.chunk(SEEDS)[1].mul_(1.5)
        for _ in range(5):
            noise.advance()
            learn()
        ends.append(
            {
                f"{name} {i}": value.chunk(SEEDS)[i].clone()
                for name, value in changed.items()
                if value.dim()
                for i in (0, 2)
            }
        )
    assert same(*ends)


@on_a_gpu
def test_runs_on_a_gpu_repeat_and_resume(script, tmp_path):
    settings = dict(**SMALL, num_seeds=2)
    whole, again, short = (
        script.train(make_args(script, total_timesteps=steps, runs_dir=str(tmp_path / name), **settings))
        for name, steps in (("whole", 600), ("again", 600), ("short", 400))
    )
    resume(script, short, total_timesteps=600)
    for other in (again, short):
        for seed in (1, 2):
            assert rows_of(other, seed) == rows_of(whole, seed)
            assert same(agent_of(other, 600, seed), agent_of(whole, 600, seed))


@on_a_gpu
@pytest.mark.parametrize("name", ["sac_baseline", "sac_hpo_safe"])
def test_too_little_memory_is_said_in_one_line(name, tmp_path):
    words = ["--runs-dir", tmp_path / "runs", *cost_flags(name)]
    ended = call(name, *words, "--num-seeds", 100, "--buffer-size", 10**9, "--total-timesteps", 10**9)
    assert ended.returncode == 2 and "GB on the cuda: lower one of them" in ended.stderr
    assert ended.stderr.count("\n") == 1 and "--num-seeds 100" in ended.stderr
    ended = call(name, *words, "--num-seeds", 2000, "--batch-size", 20000, "--buffer-size", 1000)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "--num-seeds, --buffer-size or --batch-size" in ended.stderr
    assert not (tmp_path / "runs").exists()
