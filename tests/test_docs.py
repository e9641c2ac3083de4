"""README and docs: links lead somewhere, commands parse, recipes run, tables are what a command prints."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
import tyro
from conftest import ROOT, SCRIPTS

import plot

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block for page in PAGES for block in re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.S)
]
RECIPES = {
    code.split("\n")[0].removeprefix("# "): code
    for kind, code in BLOCKS
    if kind == "python" and code[0] == "#"
}


def commands() -> list[str]:
    """Lines of shell, those that end in a backslash joined, without comments."""
    text = "\n".join(code for kind, code in BLOCKS if kind == "bash").replace("\\\n", " ")
    return [
        line for line in (re.sub(r"\s+# .*|^# .*", "", line).strip() for line in text.split("\n")) if line
    ]


def anchors(page) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_are_live(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https:")]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", SCRIPTS)
def test_departures_that_the_scripts_name_have_an_entry(name):
    text = (ROOT / f"{name}.py").read_text()
    entries = set(re.findall(r"^### (.*)$", (ROOT / "docs" / "departures.md").read_text(), re.M))
    named = set(re.findall(r"Departure \[(.+?)\]", text)) - {"entry"}
    assert named and named <= entries


def test_departures_name_code_that_is_there():
    for code in re.findall(r"^- \*\*Code\*\*: (.*)$", (ROOT / "docs" / "departures.md").read_text(), re.M):
        for path in re.findall(r"`(.+?)`", code):
            found = False
            for thing in map(importlib.import_module, SCRIPTS):
                for part in path.split("."):
                    thing = getattr(thing, part, None)
                found = found or thing is not None
            assert found, path


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line, tmp_path):
    """Those of the scripts by their own parser, those of benchmark.sh by a dry run."""
    for part in line.split(" && "):
        words = [word for word in shlex.split(part) if "=" not in word or word.startswith("-")]
        script = next((word for word in words if re.fullmatch(r"sac_\w+\.py", word)), None)
        if words and words[0].endswith("python") and script:
            tyro.cli(importlib.import_module(script.removesuffix(".py")).Args, args=words[2:])
        elif words and words[0] == "./benchmark.sh" and words[1] != "collect":
            ended = subprocess.run(["bash", *words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
            assert ended.returncode == 0 and "--run-dir" in ended.stdout, ended.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_their_command_prints(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert plot.fill(page.read_text()) == page.read_text()


SHORT = (
    "--learning-starts 40 --total-timesteps 60 --eval-frequency 60 --eval-episodes 1 --batch-size 8".split()
)


def run(words, folder):
    env = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    ended = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith(".py")])
def test_tasks_of_the_recipes_train(name, tmp_path):
    (tmp_path / name).write_text(RECIPES[name])
    task = re.search(r'register\("(.*?)"', RECIPES[name])[1]
    script = str(ROOT / "sac_baseline.py")
    run([sys.executable, script, "--env-id", f"{name.removesuffix('.py')}:{task}", *SHORT], tmp_path)


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith(".py")])
def test_recipes_in_python_run(name, tmp_path):
    (tmp_path / "results").symlink_to(ROOT / "results")
    run([sys.executable, "-c", RECIPES[name]], tmp_path)


def test_recipes_in_a_copy_of_a_script(tmp_path):
    """The edits of a line each: they apply, and what they make trains."""
    for name in SCRIPTS:
        (tmp_path / f"{name}.py").write_text((ROOT / f"{name}.py").read_text())
    words = [*SHORT, "--env-id", "Pendulum-v1"]
    run([sys.executable, "sac_baseline.py", *words, "--run-dir", "first"], tmp_path)
    (tmp_path / "agent.pt").write_bytes((tmp_path / "first" / "seed_1" / "agent_60.pt").read_bytes())
    edits = [line for line in commands() if line.startswith("sed")]
    assert len(edits) == 3
    for line in edits:
        run(["bash", "-c", line], tmp_path)
        before, after = (tmp_path / name for name in re.findall(r"\w+\.py", line))
        assert before.read_text() != after.read_text(), line
        run([sys.executable, after.name, *words], tmp_path)
