"""Writes docs/code.md anew: where each equation is in the scripts, how far they differ, what the tests hold.

    python tests/code_map.py

A test compares the page with what this would write.
"""

import ast
import difflib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASELINE, NF, HPO = "sac_baseline.py", "sac_nf.py", "sac_hpo_continuous.py"
LAGRANGIAN, SAFE = "sac_lagrangian.py", "sac_hpo_safe.py"
PAIRS = [(BASELINE, NF), (BASELINE, HPO), (BASELINE, LAGRANGIAN), (HPO, SAFE), (LAGRANGIAN, SAFE)]
EQUATIONS = [  # in the paper -> script, names in it
    ("Eq. (5), SAC's objective", BASELINE, "policy_loss"),
    ("[16], SAC's soft Bellman backup", BASELINE, "soft_q_target q_loss"),
    ("Sec. V-A, evaluation", BASELINE, "evaluate"),
    ("Table I", HPO, "TABLE_I"),
    ("Eq. (7), leapfrog", HPO, "leapfrog"),
    ("Algorithm 2", HPO, "HamiltonianPolicy.evolve"),
    ("Eqs. (9), (13): both forces", HPO, "HamiltonianPolicy.force_at"),
    ("Eq. (10), density of the evolved pair", HPO, "HamiltonianPolicy.sample_with_momentum"),
    ("Eq. (12), SAC-HPO's objective", HPO, "policy_loss"),
    ("Algorithm 1", HPO, "train update"),
    ("Table II", HPO, "Operator"),
    ("Radial flows of SAC-NF", NF, "RadialFlow FlowPolicy"),
    ("Secs. II-B and V-B, the multiplier", LAGRANGIAN, "Multiplier"),
    ("Sec. V-B, costs and limits", LAGRANGIAN, "cost_of COSTS constraint"),
    ("Cost critic", LAGRANGIAN, "cost_loss"),
    ("Algorithm 3, Eqs. (14) and (15)", SAFE, "HamiltonianPolicy.act"),
]


def lines_of(script: str) -> dict[str, int]:
    """Name of a definition or constant, of a method as Class.method -> the line on which it begins."""
    found = {}
    for node in ast.parse((ROOT / script).read_text()).body:
        if isinstance(node, ast.Assign):
            found[node.targets[0].id] = node.lineno
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node.lineno
            inner = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found |= {f"{node.name}.{n.name}": n.lineno for n in inner}
    return found


def changed_lines(a: str, b: str) -> tuple[int, int]:
    """How many lines `diff` marks, and how many both have."""
    a, b = ((ROOT / name).read_text().splitlines() for name in (a, b))
    marked = list(difflib.unified_diff(a, b, n=0, lineterm=""))[2:]
    return sum(line[0] in "+-" for line in marked), len(a) + len(b)


def page() -> str:
    lines = [
        "# Where everything is",
        "",
        "Each script begins with its algorithm: arguments, networks, policy, losses, update. Below the",
        "banner `plumbing` come environment, replay buffer, CUDA graph, evaluation, a run on disk, the loop.",
        "",
        "## From the paper to the code",
        "",
        "| in the paper | script | definition, line |",
        "| --- | --- | --- |",
    ]
    for what, script, names in EQUATIONS:
        there = lines_of(script)
        links = [f"[`{n}`](../{script}#L{there[n]}) {there[n]}" for n in names.split()]
        lines.append(f"| {what} | `{script}` | {', '.join(links)} |")
    lines += [
        "",
        "A row names one script that has it. Others may have something else under the same name:",
        "`policy_loss` is Eq. (5) or Eq. (12).",
        "",
        "## What differs between two scripts",
        "",
        "`diff` of a pair shows an algorithm and nothing else. `tests/test_diffable.py` has a table of the",
        "places where each pair may differ, and fails if another line does. Lines are counted as Python's",
        "`difflib` marks them.",
        "",
        "| from | to | changed lines | share |",
        "| --- | --- | --- | --- |",
    ]
    for a, b in PAIRS:
        changed, total = changed_lines(a, b)
        lines.append(f"| `{a}` | `{b}` | {changed} of {total:,} | {changed / total:.0%} |")
    lines += ["", "## What the tests hold", "", "| file | what it tests |", "| --- | --- |"]
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        first = ast.get_docstring(ast.parse(path.read_text())).partition("\n\n")[0]
        lines.append(f"| `tests/{path.name}` | {' '.join(first.split())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "code.md").write_text(page())
    print(ROOT / "docs" / "code.md", file=sys.stderr)
