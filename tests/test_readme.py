"""What the README and the docstrings say about the code is so."""

import ast
import importlib
import inspect
import re
from dataclasses import fields

import pytest
import torch
from conftest import ROOT, make_args

import sac_nf

README = (ROOT / "README.md").read_text()


def test_two_commands_on_the_first_screen():
    first_screen = README.splitlines()[:25]
    commands = [line for line in first_screen if line.startswith("python3.11 -m venv")]
    setup = "python3.11 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python "
    assert commands == [setup + "sac_hpo_continuous.py --env-id Hopper-v4", setup + "-m pytest"]


def test_requirements_are_exact():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+(\[[a-z]+\])?==[0-9.]+", line) for line in lines), lines


def test_every_flag_is_explained(script):
    for field in fields(script.Args):
        flag = field.name.replace("_", "-")
        assert f"`--{flag}`" in README or f"`--{flag} " in README or f"`--no-{flag}`" in README, flag


def test_every_field_of_args_has_a_line_under_it(script):
    tree = ast.parse((ROOT / f"{script.ALGORITHM}.py").read_text())
    (args,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Args"]
    assert len(args.body) == 2 * len(fields(script.Args))
    for field, text in zip(args.body[::2], args.body[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign) and isinstance(text.value.value, str)
        assert "\n" not in text.value.value


def test_names_in_the_equation_tables_exist(script):
    def exists(name):
        target = script
        for part in name.split("."):
            target = getattr(target, part, None)
        return target is not None

    table = script.__doc__.split("Paper -> this file\n")[1].split("Shapes in comments")[0]
    for line in table.splitlines():
        for name in re.findall(
            r"[A-Za-z_.]+", re.split(r"\s{2,}", line.strip())[-1] if line.startswith("    ") else ""
        ):
            assert exists(name) or name.startswith(("explore", "train", "momentum", "std")), (line, name)
    if script.ALGORITHM == "sac_hpo_safe":  # has every name
        section = README.split("| paper | function |")[1].split("\n\n")[0]
        for name in re.findall(r"`([A-Za-z_.]+)`", section):
            known = exists(name) or hasattr(sac_nf, name)
            assert known or name.endswith(".py") or name in ("conventional", "proposed"), name


def test_departures_are_declared_where_they_happen(script):
    """The docstring names a definition, and that says a word about the paper."""
    assert "## Where this departs from the paper" in README
    for line in script.__doc__.split("Departures from the paper\n")[1].split("\n\n")[0].splitlines():
        target = script
        for part in line.split()[-1].split("."):
            target = getattr(target, part)
        if callable(target):
            assert re.search(r"[Pp]aper|[Dd]eparture", inspect.getsource(target)), line


def test_number_of_weights():
    counts = {}
    for name in ("sac_baseline", "sac_hpo_continuous"):
        script = importlib.import_module(name)
        for task in re.findall(r"^\| (\S+-v\d) \| [\d,]+ \| [\d,]+ \|", README, re.MULTILINE):
            env = script.make_env(make_args(script, env_id=task))
            shape = env.observation_space.shape[0], env.action_space.shape[0]
            agent = script.Agent(*shape, script.resolve(make_args(script, env_id=task)), torch.device("cpu"))
            counts.setdefault(task, []).append(sum(p.numel() for p in agent.policy.parameters()))
    assert len(counts) == 8
    for task, (sac, hpo) in counts.items():
        assert hpo < sac
        assert f"| {task} | {sac:,} | {hpo:,} | {100 * hpo / sac:.0f} % |" in README


@pytest.mark.parametrize(
    "family, row",
    {  # alpha, 1/sqrt(beta_tr), 1/sqrt(beta_exp), epsilon, K, h_n: the paper's Table I, typed from the paper
        "HalfCheetah-v4": (0.2, 1, 0.5, 0.2, 3, 32),
        "Hopper-v4": (0.2, 0.1, 1.5, 0.15, 2, 32),
        "Hopper-v5": (0.2, 0.1, 1.5, 0.15, 2, 32),
        "Walker2d-v5": (0.2, 0.2, 1.5, 0.15, 3, 32),
        "Ant-v4": (0.2, 0.1, 1.0, 0.1, 3, 32),
        "Humanoid-v5": (0.05, 1, 1, 0.1, 3, 64),
        "HumanoidBulletEnv-v0": (0.05, 0.4, 1.5, 0.2, 3, 64),
        "HumanoidFlagrunBulletEnv-v0": (0.05, 0.2, 1, 0.15, 3, 32),
        "HumanoidFlagrunHarderBulletEnv-v0": (0.05, 0.2, 1.5, 0.15, 3, 64),
        "Swimmer-v5": (0.2, 0.1, 1.5, 0.15, 2, 32),  # not in it: Hopper's
    }.items(),
)
def test_table_i(script, capsys, family, row):
    names = "alpha momentum_std_train momentum_std_explore step_size leapfrog_steps leapfrog_hidden".split()
    args = script.resolve(make_args(script, env_id=family))
    for name, value in zip(names, row, strict=True):
        if hasattr(args, name):
            assert getattr(args, name) == value
            assert getattr(script.resolve(make_args(script, env_id=family, **{name: 7})), name) == 7  # by hand wins
    assert ("not in the paper's Table I" in capsys.readouterr().out) == (family == "Swimmer-v5")
    assert (args.batch_size, args.buffer_size, args.gamma, args.tau) == (256, 10**6, 0.99, 0.005)
    assert (args.policy_lr, args.q_lr, args.learning_starts, args.autotune) == (3e-4, 3e-4, 5000, False)
