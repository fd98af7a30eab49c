"""Which version responds, when a candidate may be promoted, and the file that all workers share."""

from __future__ import annotations

import threading

import pytest

from serving.errors import RolloutError
from serving.models.repository import Repository
from serving.models.rollout import Counts, Evidence, Pair, RolloutState, choose
from serving.models.rollout_files import RolloutFiles
from tests.serving.models.bundles import publish


@pytest.mark.parametrize(
    ("stable", "dropped", "loaded", "pair"),
    [
        ("1", [], "1", ("1", None)),
        ("1", [], "21", ("1", "2")),
        ("1", [], "321", ("1", "3")),
        ("1", ["3"], "321", ("1", "2")),
        ("1", ["2", "3"], "321", ("1", None)),
        ("3", [], "321", ("3", None)),
        # The stable version was retired: the one before it responds.
        ("3", [], "421", ("2", "4")),
        ("3", ["2"], "21", ("1", None)),
        ("1", [], "32", ("2", "3")),
        ("1", ["2"], "32", ("3", None)),
        ("1", ["2"], "2", ("2", None)),
    ],
)
def test_newest_version_after_the_stable_one_is_its_candidate(stable, dropped, loaded, pair):
    assert choose(RolloutState(stable, dropped), list(loaded)) == pair


def test_newest_version_responds_without_a_rollout():
    assert choose(None, ["10", "9"]) == ("10", None)


@pytest.mark.parametrize(
    ("counts", "failed", "is_allowed"),
    [
        (Counts(99, 0, 99, 99), 0, False),
        (Counts(100, 2, 100, 100), 0, True),
        (Counts(100, 3, 100, 100), 0, False),
        (Counts(100, 0, 90, 88), 0, True),
        (Counts(100, 0, 90, 87), 0, False),
        (Counts(100, 0, 90, 100), 0, True),
        (Counts(100, 0, 100, 100), 1, False),
    ],
)
def test_rule_looks_at_labels_rejections_and_failures(counts, failed, is_allowed):
    assert Evidence({"7": counts}, failed=failed).allows(100, 0.02) is is_allowed


def test_evidence_about_another_pair_begins_anew():
    state = RolloutState("1")
    for _ in range(2):
        state.add(Pair("1", "2"), Evidence({"7": Counts(1, 1)}, requests=1))
    assert (state.evidence.requests, state.evidence.total().disagreed) == (2, 2)
    state.add(Pair("1", "3"), Evidence({"8": Counts(1)}, requests=1))
    assert (state.evidence.requests, state.evidence.total()) == (1, Counts(1))


@pytest.mark.parametrize("folder", ["", "state"])
def test_changes_of_many_threads_are_all_kept(models, tmp_path, folder):
    files = RolloutFiles(models, folder and str(tmp_path / folder))
    assert files.read("mnist") is None
    assert files.read("none") is None
    files.change("mnist", lambda _: RolloutState("1"))

    def add(state):
        state.add(Pair("1", "2"), Evidence(requests=1))
        return state

    threads = [threading.Thread(target=lambda: [files.change("mnist", add) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.read("mnist").evidence.requests == 40
    assert files.change("mnist", lambda _: None) is None
    assert files.read("mnist").evidence.requests == 40


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"stable": ""}',
        b'{"stable": "../1"}',
        b'{"stable": 1}',
        b'{"stable": "1", "pair": ["x", "2"]}',
        b"\xff",
    ],
)
def test_file_that_is_no_state_is_an_error_that_says_the_way_out(models, content):
    files = RolloutFiles(models, "")
    files.path("mnist").write_bytes(content)
    with pytest.raises(RolloutError, match="delete it"):
        files.read("mnist")


def test_stable_version_stays_loaded_however_many_versions_are_newer(models):
    repository = Repository(models, 2)
    repository.scan()
    repository.follow_rollouts({"mnist": RolloutState("1")})
    for number in (2, 3, 4):
        publish(models, number)
        repository.scan()
    assert repository.versions("mnist") == ["1", "3", "4"]
    assert repository.get("mnist").version == "1"
    assert [model.version for model in repository.pair("mnist")] == ["1", "4"]
    repository.follow_rollouts({"mnist": RolloutState("4")})
    repository.scan()
    assert repository.versions("mnist") == ["3", "4"]
    assert repository.get("mnist").version == "4"
    assert repository.pair("mnist") is None
