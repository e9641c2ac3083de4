"""The scripts share nothing but their text: what is common is the same, line for line and in the same order.

A line may differ between two scripts only inside a definition that the table below names: so a diff of two
scripts shows the algorithm and nothing else.
"""

import ast
import difflib
from pathlib import Path

import pytest
from code_map import changed_lines

ROOT = Path(__file__).resolve().parents[1]
# Where the second script of a pair may have lines of its own ("adds"), or also lack the first's ("changes").
TEXT = {"docstring": "changes", "import": "changes", "Args": "adds", "resolve": "adds"}
LEAPFROG = {
    "BY_CPU": "adds",
    "TABLE_I": "changes",
    "Linear.with_first": "adds",
    "Critics.min_at": "adds",
    "GaussianPolicy": "changes",  # HamiltonianPolicy samples and acts in its own way
    "leapfrog": "adds",
    "HamiltonianPolicy": "adds",
    "Agent.__init__": "changes",  # which policy
    "policy_loss": "changes",  # Eq. (5) becomes Eq. (12)
    "attach": "adds",
    "update": "changes",  # the policy's part
}
COST = {
    "COST_BY_TASK": "adds",
    "COSTS": "adds",
    "constraint": "adds",
    "Multiplier": "adds",
    "Agent.__init__": "changes",
    "Batch": "adds",
    "cost_loss": "adds",
    "update": "changes",
    "cost_of": "adds",
    "Task": "changes",  # the cost of a step
    "make_env": "changes",
    "draw_weights": "adds",
    "make_optimizers": "adds",
    "ReplayBuffer": "changes",  # one more column
    "evaluate": "changes",
    "Evaluations": "adds",
    "train": "changes",
    "play": "adds",
}
FLOW = {
    "TABLE_I": "changes",
    "RadialFlow": "adds",
    "FlowPolicy": "adds",
    "Agent.__init__": "changes",
    "draw_weights": "adds",
}
ALGORITHM_3 = {
    "Args": "changes",
    "HamiltonianPolicy": "changes",
    "decide": "changes",
    "evaluate": "changes",
    "load_agent": "changes",  # its policy wants the first observation of the episode
    "resolve": "changes",
    "train": "changes",
}
UNCHANGED_IMPORT = {name: how for name, how in TEXT.items() if name != "import"}
WHERE_THEY_DIFFER = {
    ("sac_baseline.py", "sac_nf.py"): UNCHANGED_IMPORT | FLOW,
    ("sac_baseline.py", "sac_hpo_continuous.py"): TEXT | LEAPFROG | {"Operator": "adds"},
    ("sac_baseline.py", "sac_lagrangian.py"): TEXT | COST | {"policy_loss": "changes"},  # its docstring
    ("sac_hpo_continuous.py", "sac_hpo_safe.py"): UNCHANGED_IMPORT
    | COST
    | ALGORITHM_3
    | {"Operator": "changes"},
    ("sac_lagrangian.py", "sac_hpo_safe.py"): UNCHANGED_IMPORT | LEAPFROG | ALGORITHM_3,
}
AT_MOST = dict(
    zip(WHERE_THEY_DIFFER, (12, 25, 20, 30, 30), strict=True)
)  # changed lines, per cent of both scripts'


def name_of_each_line(source: str) -> list[str]:
    """For every line the definition it stands in; lines between two definitions belong to `top`."""
    lines = ["top"] * len(source.splitlines())

    def mark(node, name):
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        lines[first - 1 : node.end_lineno] = [name] * (node.end_lineno - first + 1)

    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            mark(node, node.name)
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and node.name in ("Agent", "Linear", "Critics"):
                    mark(inner, f"{node.name}.{inner.name}")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            mark(node, "import")
        elif isinstance(node, ast.Assign):
            mark(node, node.targets[0].id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            mark(node, "docstring")
    return lines


def drift(a: str, b: str, allowed: dict[str, str]) -> list[str]:
    """Lines that differ where they must not, as `name: line`."""
    a_names, b_names = name_of_each_line(a), name_of_each_line(b)
    a, b = a.splitlines(), b.splitlines()
    may_lack = {name for name, how in allowed.items() if how == "changes"}
    found = []
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            found += [f"{a_names[i]}: {a[i]}" for i in range(a0, a1) if a[i] and a_names[i] not in may_lack]
            found += [f"{b_names[i]}: {b[i]}" for i in range(b0, b1) if b[i] and b_names[i] not in allowed]
    return found


@pytest.mark.parametrize("pair", WHERE_THEY_DIFFER, ids="-".join)
def test_only_the_algorithm_differs(pair):
    a, b = ((ROOT / name).read_text() for name in pair)
    assert drift(a, b, WHERE_THEY_DIFFER[pair]) == []


@pytest.mark.parametrize("pair", WHERE_THEY_DIFFER, ids="-".join)
def test_every_exception_is_needed(pair):
    a, b = ((ROOT / name).read_text() for name in pair)
    for name in WHERE_THEY_DIFFER[pair]:
        fewer = {other: how for other, how in WHERE_THEY_DIFFER[pair].items() if other != name}
        assert drift(a, b, fewer), f"{name} is the same in both: take it off the table"


@pytest.mark.parametrize("pair", AT_MOST, ids="-".join)
def test_few_lines_differ(pair):
    changed, total = changed_lines(*pair)
    assert 100 * changed <= AT_MOST[pair] * total


def test_the_cost_side_is_the_same_with_either_policy():
    """What sac_lagrangian.py adds to sac_baseline.py, sac_hpo_safe.py adds to sac_hpo_continuous.py, line for
    line, but for the policy's own and Algorithm 3's."""
    added = {}
    for pair in [("sac_baseline.py", "sac_lagrangian.py"), ("sac_hpo_continuous.py", "sac_hpo_safe.py")]:
        a, b = ((ROOT / name).read_text() for name in pair)
        names = name_of_each_line(b)
        a, b = a.splitlines(), b.splitlines()
        blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        new = [i for tag, _, _, b0, b1 in blocks if tag != "equal" for i in range(b0, b1) if b[i].strip()]
        skip = {"docstring", "import", "Args", "HamiltonianPolicy", "decide", "load_agent"}
        added[pair[1]] = [(names[i], b[i]) for i in new if names[i] not in skip]
    lagrangian, safe = added.values()
    missing = [line for line in lagrangian if line not in safe]
    algorithm_3 = [line for line in safe if line not in lagrangian]
    assert {name for name, _ in missing} <= {"policy_loss", "update", "evaluate", "train"}, missing
    assert len(missing) <= 9, missing  # where the policy has Q - lambda Q_C from, and what else it is asked
    own = {"Agent.__init__", "policy_loss", "resolve", "update", "evaluate", "train"}
    assert {name for name, _ in algorithm_3} <= own, algorithm_3
    assert len(algorithm_3) <= 60, algorithm_3


@pytest.mark.parametrize(
    "name",
    ["Task", "cost_of", "constraint", "Multiplier", "cost_loss", "COSTS", "ReplayBuffer", "Batch", "play"],
)
def test_the_cost_side_is_identical(name):
    parts = []
    for script in ("sac_lagrangian.py", "sac_hpo_safe.py"):
        text = (ROOT / script).read_text()
        lines = zip(name_of_each_line(text), text.splitlines(), strict=True)
        parts.append([line for where, line in lines if where == name])
    assert parts[0] and parts[0] == parts[1]


@pytest.mark.parametrize("pair", WHERE_THEY_DIFFER, ids="-".join)
def test_common_definitions_stand_in_the_same_order(pair):
    orders = []
    for name in pair:
        names = [
            name for name in name_of_each_line((ROOT / name).read_text()) if name not in ("top", "import")
        ]
        orders.append(list(dict.fromkeys(names)))
    common = [name for name in orders[0] if name in orders[1]]
    assert common == [name for name in orders[1] if name in common]


@pytest.mark.parametrize(
    "old, new",
    [
        ("F.relu(self.layer2(h1))", "F.elu(self.layer2(h1))"),
        ("    seed: int = 1 ", "    seed: int = 2 "),
        ("- plumbing: evaluation", "- evaluation"),
        (
            "        write(part)\n        os.replace(part, path)\n",
            "        os.replace(part, path)\n        write(part)\n",
        ),
        ("def tanh_log_det(u: Tensor)", "def log_det_tanh(u: Tensor)"),
    ],
)
def test_the_test_itself_goes_red(old, new):
    pair = ("sac_baseline.py", "sac_hpo_continuous.py")
    a, b = ((ROOT / name).read_text() for name in pair)
    assert b.count(old) >= 1
    assert drift(a, b.replace(old, new), WHERE_THEY_DIFFER[pair])
