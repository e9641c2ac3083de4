"""On a GPU (`pytest -m cuda`): a CUDA graph does what eager execution does; runs repeat and resume."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import act, agent_of, make_args, rows_of, same

OBS_DIM, ACTION_DIM, SEEDS = 11, 3, 3


def on_a_gpu(test):
    reason = "needs a GPU: pytest -m cuda on one"
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))


def system(module, graph: bool, device="cuda", **changes):
    """What `train` puts together, with a buffer of random rows: one step's acting and learning by noise that
    is drawn before it, and all tensors that they change."""
    generator, device = torch.Generator(device).manual_seed(0), torch.device(device)
    args = module.resolve(make_args(module, num_seeds=SEEDS, **changes))
    agent = module.Agent(generator, SEEDS, OBS_DIM, ACTION_DIM, args)
    optimizers = module.make_optimizers(agent, args)
    adam = [value for o in optimizers.values() for state in o.state.values() for value in state.values()]
    buffer = module.ReplayBuffer(SEEDS, 1000, OBS_DIM, ACTION_DIM, device)
    for _ in range(50):
        fields = torch.randn(SEEDS, sum(buffer.widths), generator=generator, device=device).cpu()
        fields[:, 2 * OBS_DIM + ACTION_DIM + 1] = fields[:, 0] > 1.0  # terminated
        buffer.add(*fields.split(buffer.widths, dim=-1))
    obs = torch.randn(SEEDS, 1, OBS_DIM, generator=generator, device=device)
    noise_to_act = torch.zeros(agent.draws_to_act, SEEDS, 1, ACTION_DIM, device=device)
    noise = torch.zeros(2 * agent.draws, SEEDS, args.batch_size, ACTION_DIM, device=device)
    numbers = torch.zeros(SEEDS, args.batch_size, dtype=torch.long, device=device)

    def learn():
        return module.update(agent, optimizers, buffer.sample(numbers), noise, args)

    functions = [partial(act, agent, obs, noise_to_act, obs.flip(0)), learn]
    changed = dict(agent.state_dict()) | {f"adam {number}": value for number, value in enumerate(adam)}
    if graph:
        before = {name: value.clone() for name, value in changed.items()}
        functions = [module.capture(function, list(changed.values())) for function in functions]
        assert same(before, changed)  # the calls before the capture leave no trace

    def step() -> dict:
        noise_to_act.normal_(generator=generator)
        noise.normal_(generator=generator)
        numbers.random_(buffer.added, generator=generator)
        action, logs = (function() for function in functions)
        return {"action": action.clone()} | {name: value.clone() for name, value in (logs | changed).items()}

    return step, changed


def test_what_is_compared_runs_on_a_cpu(script):
    step, changed = system(script, graph=True, device="cpu")
    before = {name: value.clone() for name, value in changed.items()}
    after = step()
    assert all(value.isfinite().all() for value in after.values()) and not same(before, changed)
    assert after["action"].shape == (SEEDS, 1, ACTION_DIM) and after["action"].abs().max() <= 1.0


@on_a_gpu
@pytest.mark.parametrize("changes", [{}, {"autotune": True}, {"train": "conventional", "explore": "drift"}])
def test_a_graph_does_what_eager_execution_does(script, changes):
    if not all(hasattr(script.Args, name) for name in changes):
        pytest.skip("not a flag of this script")
    (eager, _), (graph, _) = (system(script, graph, **changes) for graph in (False, True))
    steps = [(eager(), graph()) for _ in range(50)]
    for one, other in steps[0], steps[-1]:
        assert one.keys() == other.keys() and all(value.isfinite().all() for value in one.values())
        # For a batch of one, cuBLAS may choose another kernel on another stream.
        torch.testing.assert_close(one.pop("action"), other.pop("action"), rtol=0, atol=1e-5)
        assert same(one, other)
    assert sum(not torch.equal(value, steps[-1][0][name]) for name, value in steps[0][0].items()) > 20


@on_a_gpu
def test_agents_on_a_gpu_are_independent(script):
    """What belongs to agent 1 changes nothing of the others."""
    ends = []
    for spoiled in False, True:
        step, changed = system(script, graph=True)
        for value in changed.values() if spoiled else []:
            if value.dim():
                value.chunk(SEEDS)[1].mul_(1.5)
        found = [step() for _ in range(5)][-1]
        ends.append({(n, i): x.chunk(SEEDS)[i] for n, x in found.items() if x.dim() for i in (0, 2)})
    assert same(*ends)


@on_a_gpu
def test_runs_on_a_gpu_repeat_and_resume(script, tmp_path):
    changes = dict(learning_starts=100, eval_frequency=200, eval_episodes=2, checkpoint_frequency=200)
    args = make_args(script, num_seeds=2, total_timesteps=600, run_dir=str(tmp_path / "whole"), **changes)
    whole, again, short = (
        script.train(replace(args, total_timesteps=steps, run_dir=str(tmp_path / name)))
        for name, steps in (("whole", 600), ("again", 600), ("short", 400))
    )
    script.train(replace(args, resume=str(short), run_dir=None))
    for other in again, short:
        for seed in 1, 2:
            assert rows_of(other, seed) == rows_of(whole, seed)
            assert same(agent_of(other, 600, seed), agent_of(whole, 600, seed))


@on_a_gpu
def test_too_large_a_buffer_is_refused(either, tmp_path):
    args = make_args(either, num_seeds=100, buffer_size=10**9, total_timesteps=10**9)
    with pytest.raises(ValueError, match=r"^--buffer-size 1000000000 of 100 agents wants .* GB: .*$"):
        either.train(replace(args, run_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
