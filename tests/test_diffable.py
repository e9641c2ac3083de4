"""The scripts share nothing but their text: what stands under one name in two of them has one source.

The table names the places where algorithms differ: a diff of two scripts shows these and nothing else.
"""

import ast
import itertools

from conftest import ROOT

# Which of sac_baseline, sac_nf, sac_hpo_continuous, sac_lagrangian and sac_hpo_safe have the same source,
# by equal letters; "-" where there is none.
ORDER = ["sac_baseline", "sac_nf", "sac_hpo_continuous", "sac_lagrangian", "sac_hpo_safe"]
WHERE_THEY_DIFFER = {
    "abcac": "SETTINGS TABLE_I Policy Policy.__init__ Policy.forward",
    "aabab": "Critics.forward",
    "aaabb": "--env_id Batch Fresh Fresh.__init__ Fresh.step make_env ReplayBuffer.__init__"
    " ReplayBuffer.sample make_optimizers Run.collect play",
    "aaaab": "decide load_agent",
    "aabac": "Agent Agent.act",  # how much noise an action takes, and how
    "aabcd": "update",
    "aaabc": "evaluate train",
    "aabcc": "resolve",
    "aabbb": "imports",  # Literal
    "abcde": "docstring Args MAY_BE_0 Agent.__init__",
    "--a-b": "--leapfrog_steps Agent.value_at Agent.grad_u_at Agent.evolve",
}
# What sac_hpo_continuous or sac_lagrangian adds to sac_baseline, sac_hpo_safe has too, by name and line for
# line, but for operators and BULLET, and where Algorithm 3 or the value in the force take their place.
ONE_PARENT_S = {"BULLET", "Operator", "--explore", "--train"}
ONE_PARENT_S_LINES = {"evaluate": 1, "update": 2 + 2, "resolve": 2}
WHOLLY_OWN = {"docstring", "Args", "MAY_BE_0", "Agent", "Agent.act", "decide", "load_agent"}


def pieces(text: str) -> dict[str, str]:
    """Source by name, in its order: definitions, methods as Class.method, constants, banners by their text;
    imports, the docstring and its last paragraph, fields of Args, and what runs at last."""
    tree, lines, found = ast.parse(text), text.splitlines(), {}

    def source(node, end=None):
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        return "\n".join(lines[first - 1 : end or node.end_lineno])

    for node in sorted([*tree.body, *banners(lines)], key=lambda node: node.lineno):
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found[node.name] = source(node, methods[0].lineno - 2 if methods else None)
            found |= {f"{node.name}.{n.name}": source(n) for n in methods}
            if node.name == "Args":
                found |= {f"--{n.target.id}": source(n) for n in node.body if isinstance(n, ast.AnnAssign)}
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = source(node)
        else:
            if isinstance(node, ast.Expr):
                found["notation"] = source(node).rpartition("\n\n")[2]
            kinds = {ast.Import: "imports", ast.ImportFrom: "imports", ast.Expr: "docstring", ast.If: "main"}
            name = kinds.get(type(node)) or (
                node.target.id if hasattr(node, "target") else node.targets[0].id
            )
            found[name] = found.get(name, "") + source(node)
    return found


def banners(lines: list[str]) -> list[ast.AST]:
    """As if each were a constant of its own name. No other comment stands between definitions."""
    loose = [i for i, line in enumerate(lines, 1) if line.startswith("#") and set(line[:5]) != {"#"}]
    return [ast.Assign([ast.Name(lines[i - 1])], None, lineno=i, end_lineno=i) for i in loose]


def patterns(scripts: list[dict]) -> dict[str, str]:
    """Where not all that have a name have one source for it: as in WHERE_THEY_DIFFER."""
    found = {}
    for name in dict.fromkeys(itertools.chain(*scripts)):
        sources = [script.get(name) for script in scripts]
        kinds = [source for source in dict.fromkeys(sources) if source is not None]
        if len(kinds) > 1:
            found[name] = "".join("-" if s is None else "abcde"[kinds.index(s)] for s in sources)
    return found


TABLE = {name: pattern for pattern, names in WHERE_THEY_DIFFER.items() for name in names.split()}
TEXTS = [(ROOT / f"{name}.py").read_text() for name in ORDER]


def problems(texts: list[str]) -> list:
    scripts = [pieces(text) for text in texts]
    found = sorted(patterns(scripts).items() ^ TABLE.items())  # drift, and entries that are not needed
    for a, b in itertools.combinations(scripts, 2):
        orders = [name for name in a if name in b], [name for name in b if name in a]
        found += [("order", one, other) for one, other in zip(*orders, strict=True) if one != other]
    base, flow, hpo, lagrangian, safe = scripts
    for parent, child in (base, flow), (base, hpo), (base, lagrangian), (hpo, safe), (lagrangian, safe):
        found += [("missing", name) for name in parent.keys() - child.keys() - ONE_PARENT_S]
    for name in sorted(TABLE.keys() & base.keys() - WHOLLY_OWN):
        kept = (base[name] + "\n" + safe.get(name, "")).splitlines()
        added = [line for parent in (hpo, lagrangian) for line in parent.get(name, "").splitlines()]
        lost = [line for line in added if line not in kept]
        found += [(name, lost)] if len(lost) > ONE_PARENT_S_LINES.get(name, 0) else []
    return found


def test_only_the_algorithms_differ():
    assert problems(TEXTS) == []
