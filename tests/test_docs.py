"""The documentation says what the code does: commands, flags, variables, routes, paths, links and responses."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from benchmarks.accuracy import ROWS
from docs.tables import TABLE, TABLES, table
from serving.settings import described, variable
from tests.support import BIN, ROOT, missing, service, started

README = (ROOT / "README.md").read_text()
PAGES = {
    path: path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
}
ALL = "\n".join(PAGES.values())
LINKING = {**PAGES, **{path: path.read_text() for path in (ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md")}}
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", ALL, re.DOTALL))
CURL = sorted({line for line in SHELL.splitlines() if line.startswith("curl ") or "| curl " in line})
PYTHON = re.findall(r"```python\n(.*?)```", ALL, re.DOTALL)
NODE = [block for block in re.findall(r"```js\n(.*?)```", ALL, re.DOTALL) if "node:" in block]
CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", ALL, flags=re.DOTALL)))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
# Commands that have commands of their own.
PARTS = {"mnist-export": ["push", "pull"], "mnist-serve": ["tune"], "mnist-train": ["check", "compare", "review"]}
ADDRESS = "127.0.0.1:8000"
GRPC_ADDRESS = "127.0.0.1:8001"
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def flags(run):
    """The flags of each command, and of its own commands."""
    found = {}
    for command in SCRIPTS:
        parts = [[], *([part] for part in PARTS.get(command, []))]
        found[command] = set(re.findall(r"--[a-z0-9-]+", "".join(run(command, *p, "--help").stdout for p in parts)))
    return found


# Tables that a program writes.


@pytest.mark.parametrize("name", TABLES)
def test_generated_table_is_up_to_date(name):
    [written] = [found[2] for text in PAGES.values() for found in TABLE.finditer(text) if found[1] == name]
    assert written == table(name), "run: python -m docs.tables"


# Commands, flags, variables, targets, paths.


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_and_its_flags_are_described(command, run):
    assert f"`{command}" in ALL
    assert command in SHELL
    shown_help = run(command, "--help").stdout
    assert shown_help.splitlines()[-1].strip().startswith(command), "a help ends with an example"
    for flag in re.findall(r"^  (--[a-z0-9-]+)", shown_help, re.MULTILINE):
        if flag not in ("--version", "--help"):
            assert f"`{flag}" in ALL, f"{command} {flag} is not in the documentation"


def test_every_flag_in_a_command_line_exists(flags):
    used = set()
    for line in SHELL.splitlines():
        if found := re.search(rf"(?<![\w/.-])({'|'.join(SCRIPTS)}) (.*)", line):
            used |= {(found[1], word) for word in found[2].split() if word.startswith("--")}
    assert used
    for command, flag in sorted(used):
        assert flag in flags[command], f"{command} {flag}"


def run_folder(arguments):
    """The folder that ``mnist-train`` writes with these arguments."""
    model = "cnn-fast" if "--recipe speed" in arguments else "cnn"
    given = dict(re.findall(r"--(model|output) (\S+)", arguments))
    return given.get("output", f"runs/{given.get('model', model)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_two_commands_of_a_page_begin_a_run_in_the_same_folder(page):
    """``mnist-train`` refuses a folder that holds a run, unless it gets ``--resume``."""
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)).replace("\\\n", " ")
    runs = re.findall(r"\bmnist-train\b(?! check| compare| review)(.*)", shell)
    folders = [run_folder(arguments) for arguments in runs if "--resume" not in arguments]
    assert sorted(folders) == sorted(set(folders))


def test_every_flag_in_the_text_exists(flags):
    used = {code.split()[0] for code in CODE if code.startswith("--")}
    assert used
    assert used <= set().union(*flags.values())


def test_every_variable_in_the_text_exists():
    known = {variable(name) for name, _, _ in described()} | {"MNIST_DATA", "MNIST_SIGN_PASSWORD"}
    known |= set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bMNIST_[A-Z_]+", ALL)) <= known


def test_every_make_target_is_described_and_exists():
    assert {"setup", "run", "serve", "test", "check", "bench", "help"} <= TARGETS
    told = set(re.findall(r"^make ([a-z-]+)", "\n".join([*CODE, *SHELL.splitlines()]), re.MULTILINE))
    assert told == TARGETS


def test_every_path_in_the_text_exists():
    folders = "training|export|serving|benchmarks|deploy|tests|examples|docs"
    paths = {path for path in re.findall(rf"(?<![\w/-])(?:{folders})/[\w./-]+", ALL) if "FORMAT" not in path}
    assert paths
    missing = sorted(path for path in paths if not (ROOT / path.rstrip(".")).exists())
    assert missing == []


def test_every_benchmark_and_its_rows_exist():
    for name in re.findall(r"python -m (benchmarks\.\w+)", ALL):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
    for rows in re.findall(r'--rows "(.*?)"', ALL):
        assert set(rows.split(",")) <= set(ROWS)


# Links and length.


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = LINKING[page]
    named = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"\]\[([\w-]+)\]", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL))) == set(named)
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text), *named.values()]
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_rows_of_a_table_have_as_many_cells_as_its_header(page):
    """A table whose header has another number of cells than the line below it is shown as plain text."""
    lines = [re.sub(r"\\\||`[^`]*`", "", line) for line in PAGES[page].splitlines()]
    for number, (above, line) in enumerate(itertools.pairwise(lines), 1):
        if line.startswith("|") and above.startswith("|"):
            assert line.count("|") == above.count("|"), f"{page.name}:{number + 1}"


def test_readme_fits_on_a_few_screens():
    assert len(README.splitlines()) <= 150


def test_readme_shows_a_prediction_before_any_server_of_your_own():
    assert README.index("\nmnist-predict tests/seven.png\n") < README.index("\nmnist-serve")


# Requests and responses.


@pytest.fixture(scope="module")
def uds(tmp_path_factory):
    return tmp_path_factory.mktemp("socket") / "socket"


@pytest.fixture(scope="module")
def addresses(uds, tmp_path_factory):
    folders = (
        "--feedback",
        tmp_path_factory.mktemp("feedback"),
        "--rollout",
        "--state",
        tmp_path_factory.mktemp("state"),
    )
    with started("--admin-keys", "KEY", "--grpc-port", 0, "--uds", uds, *folders) as (addresses, _):
        yield addresses


@pytest.fixture(scope="module")
def url(addresses):
    return addresses["http"]


@pytest.fixture(scope="module")
def here(url, addresses, uds, authority):
    """Return a text with the addresses and files of the documentation replaced by those of running services."""
    with service(*authority.flags()) as (https, _):
        port = https.rpartition(":")[2]
        replaced = {
            f"http://{ADDRESS}": url,
            ADDRESS: url.removeprefix("http://"),
            GRPC_ADDRESS: addresses["grpc"],
            "localhost:8443": f"localhost:{port}",
            "tls/ca.crt": str(authority.file),
            "tls.crt": str(authority.file),
            "/tmp/digits.sock": str(uds),
        }

        def here(text):
            for shown, real in replaced.items():
                text = text.replace(shown, real)
            return text

        yield here


@pytest.mark.parametrize("line", CURL)
def test_curl_lines_run(here, line):
    line = here(line)
    line = re.sub(r"\bcurl\b", "curl --silent --show-error --fail-with-body", line, count=1)
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "seven.png" in line:
        assert '"label":"7"' in done.stdout


def rounded(text):
    """Floats to three decimals: their last digits differ from CPU to CPU."""
    return re.sub(r"\d+\.\d+(e-\d+)?", lambda number: f"{float(number[0]):.3f}", text)


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_response_is_the_one_that_is_shown(url, page):
    import httpx

    [shown] = re.findall(r"```json\n(.*?)\n```", PAGES[ROOT / page], re.DOTALL)
    start, end = rounded(shown).split("…")
    picture = (ROOT / "tests" / "seven.png").read_bytes()
    response = rounded(httpx.post(f"{url}/predict", content=picture, headers={"content-type": "image/png"}).text)
    assert response.startswith(start)
    assert response.endswith(end)
    assert response[len(start) : -len(end)].count(",") == 7, "… stands for eight probabilities"


def test_every_route_is_described(url):
    import httpx

    for path, methods in httpx.get(f"{url}/schema").json()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in ALL


@pytest.mark.parametrize("program", PYTHON)
def test_python_blocks_run(here, program):
    done = subprocess.run([sys.executable, "-c", here(program)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", NODE)
def test_node_blocks_run(url, program, tmp_path):
    node = shutil.which("node") or missing("Node.js")
    (tmp_path / "program.mjs").write_text(program.replace(f"http://{ADDRESS}", url))
    done = subprocess.run([node, tmp_path / "program.mjs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"7 0\.99\d+ accepted\n", done.stdout), done.stdout


def test_predict_lines_run(tmp_path):
    lines = [line for line in SHELL.splitlines() if re.search(r"(^|\| )mnist-predict", line)]
    assert lines
    for name in ("tests/seven.png", "tests/serving/pictures/pages"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        subprocess.run(line, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)


def test_prediction_is_the_one_that_is_shown(run):
    [shown] = re.findall(r"```text\n(file .*?)```", README, re.DOTALL)
    assert run("mnist-predict", "tests/seven.png", cwd=ROOT).stdout == shown
