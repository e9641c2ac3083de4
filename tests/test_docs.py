"""What README, docs and docstrings say about the code is so: commands, flags, names, links, numbers."""

import ast
import importlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tokenize
from dataclasses import fields
from fnmatch import fnmatch

import code_map
import pytest
from conftest import ROOT, SCRIPTS, make_args

import plot

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
USAGE, SPEED, DEPARTURES = PAGES["usage.md"], PAGES["speed.md"], PAGES["departures.md"]


def source(name: str) -> str:
    return (ROOT / f"{name}.py").read_text()


def exists(module, name: str) -> bool:
    """A name like `HamiltonianPolicy.act` in a script."""
    for part in name.split("."):
        module = getattr(module, part, None)
    return module is not None


def flags(module) -> set[str]:
    names = [field.name.replace("_", "-") for field in fields(module.Args)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names}


def scripts(text: str = "") -> list:
    """The scripts that a text names as `name.py`, or all."""
    named = [name for name in SCRIPTS if f"`{name}.py`" in text]
    return [importlib.import_module(name) for name in named or SCRIPTS]


# ------------------------------------------------------------------------------------- README and other pages


def code_lines(text: str) -> list[str]:
    """What stands in blocks of bash."""
    return "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()


def test_the_readme_is_short():
    assert len(README.encode()) <= 15_000


def test_install_first_run_and_tests():
    """Lines that fit a narrow terminal; the line that tests installs as well."""
    lines = code_lines(README)
    setup = ["python3.11 -m venv .venv", ".venv/bin/pip install -r requirements.txt"]
    tests = " && ".join([*setup, ".venv/bin/python -m pytest"])
    assert tests in lines
    assert "".join(lines).startswith("git clone") and [line for line in lines if line in setup] == setup
    assert max(len(line) for line in lines if line != tests) < 80


def test_commands_are_understood(script):
    """Every flag in a command of this script, in any page, is one that it has."""
    commands = [line for text in (README, *PAGES.values()) for line in commands_of(text)]
    own = [c for c in commands if f"{script.ALGORITHM}.py " in c]
    assert own or script.ALGORITHM != "sac_hpo_continuous"
    for command in own:
        assert set(re.findall(r"--[a-z][a-z0-9-]*", command.partition(".py")[2])) <= flags(script), command


def test_commands_of_plot_are_understood():
    """Parsed as plot.py parses them, and not run."""
    text = "\n".join([README, *PAGES.values()])
    calls = {line.partition("#")[0].strip() for line in commands_of(text)}
    calls |= set(re.findall(r"`(python plot\.py [^`]+)`", text))
    calls = {call for call in calls if call.startswith("python plot.py ")}
    commands = {"curves": plot.Curves, "table": plot.Table, "policy": plot.Policy, "gap": plot.Gap}
    commands |= {"logs": plot.Logs, "docs": plot.Docs}
    used = [plot.tyro.extras.subcommand_cli_from_dict(commands, args=shlex.split(call)[2:]) for call in calls]
    assert len(calls) > 7 and {type(command) for command in used} == set(commands.values())


def test_experiments_that_are_named_exist():
    """Every call of benchmark.sh in any page, without running what it would run."""
    text = "\n".join([README, *PAGES.values()])
    calls = {
        line.partition("#")[0].strip() for line in commands_of(text) if line.startswith("./benchmark.sh")
    }
    calls |= set(re.findall(r"`(\./benchmark\.sh [^`]+)`", text))
    assert len(calls) > 15
    no_gpu = {**os.environ, "PYTHON": "/bin/false"}  # asked whether there is one, it does not say so
    for call in calls:
        words = shlex.split(call.partition(" --slurm")[0])
        if words[1] not in ("quick", "speed", "collect"):
            words += ["--seeds", "1", "--dry-run"]
            done = subprocess.run(words, cwd=ROOT, env=no_gpu, capture_output=True, text=True)
            assert done.returncode == 0, (call, done.stderr)


def commands_of(text: str) -> list[str]:
    """Lines of bash, continued ones put together, and commands in the running text."""
    lines = "\n".join(code_lines(text)).replace("\\\n", "").splitlines()
    return lines + re.findall(r"`(python sac_[^`]+)`", text)


def test_requirements_are_exact():
    """A version for each, and for some the versions of Python on which it installs."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    exact = r'[a-z-]+(\[[a-z]+\])?==[0-9.]+(; python_version < "3\.\d+")?'
    assert lines and all(re.fullmatch(exact, line) for line in lines), lines


def test_every_flag_is_explained(script):
    for field in fields(script.Args):
        flag = field.name.replace("_", "-")
        assert f"`--{flag}`" in USAGE or f"`--{flag} " in USAGE or f"`--no-{flag}`" in USAGE, flag


def test_every_flag_that_is_explained_exists():
    section = USAGE.split("\n## Arguments\n")[1].split("\n## ")[0]
    known = set().union(*map(flags, scripts()))
    found = set(re.findall(r"--[a-z][a-z0-9-]*", section))
    assert len(found) > 20 and found <= known, found - known


def test_the_page_about_the_code_is_not_stale():
    assert PAGES["code.md"] == code_map.page(), "run: python tests/code_map.py"


def test_links_lead_somewhere():
    """To a file, and to a heading in it."""
    for path in ROOT / "README.md", *(ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if target.startswith("https://"):
                continue
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            if anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], (
                    target
                )


def test_it_is_shown_how_to_load_an_agent(script):
    """The lines that load_agent's docstring has, or the call in which they differ."""
    example = textwrap.dedent(script.load_agent.__doc__.partition("\n\n")[2]).strip().splitlines()
    assert example[0].startswith("policy = load_agent(") and any("policy(" in line for line in example[1:])
    shown = re.search(r"```python\nfrom (\w+) import load_agent\n\n(.*?)```", README, re.DOTALL)
    assert shown[1] in SCRIPTS and "load_agent" in USAGE
    for line in example:
        (call,) = re.findall(r"\bpolicy\([^()]*\)", line) or [line]
        assert line in shown[2].splitlines() or f"`{call}`" in USAGE, line


def test_the_environment_that_is_shown_trains(tmp_path):
    """By its command, cut short; then it is filmed, and its agent acts in the user's own program."""
    text = USAGE.split("\n## Your own environment\n")[1]
    (module,) = re.findall(r"```python\n(.*?)```", text.split("\n## ")[0], re.DOTALL)
    (tmp_path / "my_module.py").write_text(module)
    (command,) = [line for line in commands_of(text) if "my_module:" in line]
    words = [sys.executable, "-W", "error::UserWarning", *shlex.split(command)[1:]]
    words[words.index("--total-timesteps") + 1] = "520"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    (tmp_path / words[3]).symlink_to(ROOT / words[3])

    def run(*words):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "seed 1, step 520: return" in run(*words)
    (folder,) = (tmp_path / "runs").iterdir()
    run(*words[:4], "--evaluate", str(folder), "--capture-video", "--eval-episodes", "1")
    assert list((folder / "seed_1" / "videos").glob("*.mp4"))
    program = re.findall(r"```python\n(.*?)```", text.split("\n## ")[1], re.DOTALL)[0]
    program = (
        program.replace("runs/<run>", str(folder))
        .replace("1000000", "520")
        .replace("Hopper-v4", "my_module:Point-v0")
    )
    run(sys.executable, "-c", f"{program}\nassert env.observation_space.contains(obs)")
    check = "from gymnasium.utils.env_checker import check_env\nimport my_module, gymnasium as gym\n"
    run(sys.executable, "-c", check + "check_env(gym.make('Point-v0', render_mode='rgb_array').unwrapped)")


SIZES = dict(re.findall(r"^\| (\S+-v\d) \| ([\d,]+(?: \| [\d,]+ \| \d+ %){2}) \|$", SPEED, re.MULTILINE))


def test_the_table_of_weights_has_the_papers_tasks():
    table_i = importlib.import_module("sac_baseline").TABLE_I
    assert len(SIZES) == 8 and {re.sub(r"-v\d$", "", task) for task in SIZES} == {*table_i} - {""}


@pytest.mark.parametrize("task", SIZES)
def test_number_of_weights(task):
    if "Bullet" in task and importlib.util.find_spec("pybullet") is None:
        pytest.skip("PyBullet does not install on Python 3.12 or later")
    counts = []
    for module in map(importlib.import_module, ("sac_baseline", "sac_nf", "sac_hpo_continuous")):
        args = module.resolve(make_args(module, env_id=task))
        env = module.make_env(args)
        shape = env.observation_space.shape[0], env.action_space.shape[0]
        env.close()
        agent = module.Agent(1, *shape, args)
        counts.append(sum(p.numel() for p in agent.policy.parameters()))
    sac, *others = counts
    shares = [f"{count:,} | {100 * count / sac:.0f} %" for count in others]
    assert max(others) < sac and SIZES[task] == " | ".join([f"{sac:,}", *shares])


# ------------------------------------------------------------------------------------------------ the scripts


def test_every_field_of_args_has_a_line_of_help(script):
    """Beside it, or above it; what stands above the first field of a block is the block's name."""
    text = source(script.ALGORITHM)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.line.strip() for token in tokens if token.type == tokenize.COMMENT}
    (args,) = [node for node in ast.parse(text).body if getattr(node, "name", "") == "Args"]
    assert all(isinstance(node, ast.AnnAssign) for node in args.body)
    assert [node.target.id for node in args.body] == [field.name for field in fields(script.Args)]
    lines, used = text.splitlines(), set()
    for node in args.body:
        above = node.lineno - 1
        within_a_block = lines[above - 2].strip() and above - 2 >= args.lineno
        if node.end_lineno in comments:
            used.add(node.end_lineno)
        else:
            assert within_a_block and comments.get(above, "").startswith("# "), node.target.id
            used.add(above)
    own = [n for n in comments if args.lineno < n <= args.end_lineno and n not in used]
    names = [n for n in own if not lines[n - 2].strip() or n == args.lineno + 1]
    assert own == names, [lines[n - 1] for n in own if n not in names]  # one line of help each, and no more


REFERENCE = r"Eqs?\. \(\d+\)(?: and \(\d+\))*|Algorithm \d|Secs?\. [IVX]+-[A-Z](?: and [IVX]+-[A-Z])*"
REFERENCE += r"|Tables? [IVX]+|Figs?\. \d|\[\d+\]"


def test_names_in_the_docstrings_equation_list_exist(script):
    """After each reference to the paper: names of definitions, or flags."""
    assert re.search(REFERENCE, "Eqs. (9) and (13) a").group() == "Eqs. (9) and (13)"
    (paragraph,) = [p for p in script.__doc__.split("\n\n") if p.startswith("Paper -> this file: ")]
    text = paragraph.partition(":")[2].split("\nWhere this file departs")[0]
    assert "docs/departures.md" in paragraph and "\nWhere this file departs" in paragraph
    before, *parts = re.split(REFERENCE, text)
    words = re.findall(r"[\w.*-]*[\w*]", " ".join(parts))
    assert not before.strip() and re.search(r"\w", parts[-1]) and len(words) >= len(parts) >= 4
    for word in words:
        if word.startswith("--"):
            assert any(fnmatch(flag, word) for flag in flags(script)), word
        else:
            assert exists(script, word) or word in ("and", "costs", "limits", "0"), word


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
            by_hand = script.resolve(make_args(script, env_id=family, **{name: 7}))
            assert getattr(by_hand, name) == 7
    assert ("not in the paper's Table I" in capsys.readouterr().out) == (family == "Swimmer-v5")
    assert (args.batch_size, args.buffer_size, args.gamma, args.tau) == (256, 10**6, 0.99, 0.005)
    assert (args.policy_lr, args.q_lr, args.learning_starts, args.autotune) == (3e-4, 3e-4, 5000, False)


# ----------------------------------------------------------------------------------------- docs/departures.md


def entries() -> dict[str, list[str]]:
    """Heading -> the names at the end of its entry, where the code is."""
    found = {}
    for entry in re.split(r"^### ", DEPARTURES, flags=re.MULTILINE)[1:]:
        heading, _, text = re.split(r"^## ", entry, flags=re.MULTILINE)[0].partition("\n")
        (where,) = re.findall(r"^- \*\*Code\*\*: (`[\w.]+`(?:, `[\w.]+`)*)$", text.rstrip(), re.MULTILINE)
        assert text.rstrip().endswith(where), f"{heading}: what follows its code?"
        assert heading not in found, heading
        found[heading] = where.strip("`").split("`, `")
    return found


DEPARTURE = re.compile(r"\bDeparture \[([^\]\n]+)\]")


def departures(text: str) -> list[tuple[str, str]]:
    """Of each comment that says "Departure [entry]": the definition it is in, and the entry. The module's
    docstring only says that there are such comments."""
    tree, found = ast.parse(text), []

    def inside(nodes, line):
        for node in nodes:
            if node.lineno <= line <= node.end_lineno:
                return node
        return None

    for number, line in enumerate(text.splitlines(), start=1):
        node = inside(tree.body, number)
        if "departure" not in line.lower() or (node is tree.body[0] and isinstance(node, ast.Expr)):
            continue
        named = DEPARTURE.findall(line)
        assert len(named) == len(re.findall("departure", line, re.IGNORECASE)), f"{number}: no entry: {line}"
        if isinstance(node, ast.ClassDef):
            method = inside([n for n in node.body if isinstance(n, ast.FunctionDef)], number)
            name = f"{node.name}.{method.name}" if method else node.name
        elif isinstance(node, ast.Assign):
            name = node.targets[0].id
        else:
            assert isinstance(node, ast.FunctionDef), f"line {number}: {line.strip()}"
            name = node.name
        found += [(name, entry) for entry in named]
    return found


def test_departures_of_a_small_script():
    text = """'Departure: as said.'

A = 1  # Departure [One]: x


class B:
    'Departure [Two].'

    def c(self):
        # Departure [A b (c)]: x

        def d():  # Departure [Four]
            ...
"""
    assert departures(text) == [("A", "One"), ("B", "Two"), ("B.c", "A b (c)"), ("B.c", "Four")]
    with pytest.raises(AssertionError, match="3: no entry"):
        departures('"""Doc."""\n\nA = 1  # Departure: without its entry\n')


def test_every_departure_in_the_code_names_its_entry_and_the_entry_its_place(script):
    known, found = entries(), departures(source(script.ALGORITHM))
    assert len(found) >= 4
    for name, entry in found:
        assert entry in known and name in known[entry], (name, entry)


def test_every_entry_names_code_that_exists():
    assert len(entries()) > 40
    for heading, names in entries().items():
        for name in names:
            assert any(exists(module, name) for module in scripts()), (heading, name)


def test_every_entry_says_what_the_paper_has_what_we_have_and_why():
    for entry in re.split(r"^### ", DEPARTURES, flags=re.MULTILINE)[1:]:
        parts = re.findall(r"^- \*\*(\w+)\*\*", entry, re.MULTILINE)
        assert [part for part in parts if part != "Measured"] == ["Paper", "Here", "Why", "Code"], entry


def test_the_readme_knows_where_the_plumbing_begins():
    lines = source("sac_baseline").splitlines()
    (banner,) = [i for i, line in enumerate(lines) if re.match("# =+ plumbing", line)]
    assert f"these {banner} lines are SAC" in README


def test_the_readme_leads_to_every_page():
    """And has no second copy of the departures."""
    assert all(f"](docs/{name})" in README for name in PAGES)
    headings = re.findall(r"^## (.*)", README, re.MULTILINE)
    assert not [heading for heading in headings if "depart" in heading.lower()]
