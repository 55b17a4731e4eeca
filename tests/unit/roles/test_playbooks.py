# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks under settings that are the user's own, and where nothing matches them."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
PLAYBOOKS = sorted(path for path in (CHECKOUT / "playbooks").glob("*.yml") if path.stem != "targets")
# Instead of a list of facts: whatever Ansible sets with this prefix that is no fact.
NO_FACTS = r"""play_\w+ playbook_python host port user limit check_mode diff_mode facts version become\w* connection\w*
    managed pipelining forks job_id collections ssh\w* python_interpreter private_key_file run_tags local search_path
    group_priority loop_var""".split()
FACT = re.compile(rf"(?<![\w.'\"])ansible_(?!(?:{'|'.join(NO_FACTS)})\b)[a-z]\w*")


def plays(path):
    """The plays of a playbook, without those that it imports."""
    return [play for play in yaml.safe_load(path.read_text(encoding="utf-8")) if "hosts" in play]


def run(playbook, directory, *arguments, inventory="{}", **environment):
    """Run a playbook as somebody does who has no settings of ours."""
    file = directory / f"{playbook}.inventory.yml"
    file.write_text(inventory, encoding="utf-8")
    argv = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(file), f"virtuoso.grid.{playbook}", *arguments]
    return subprocess.run(
        argv,
        cwd=directory,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build" / "collections"),
            "XDG_DATA_HOME": str(directory),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", [*PLAYBOOKS, CHECKOUT / "playbooks" / "targets.yml"], ids=lambda path: path.stem)
def test_each_play_says_itself_what_it_depends_on(path):
    for play in plays(path):
        assert {"gather_facts", "strategy", "any_errors_fatal"} <= set(play), play["name"]
        assert play["strategy"] == "linear" and play["any_errors_fatal"] is False


@pytest.mark.parametrize(
    "path",
    [*PLAYBOOKS, *sorted((CHECKOUT / "roles").rglob("*.yml")), *sorted((CHECKOUT / "roles").rglob("*.j2"))],
    ids=lambda path: str(path.relative_to(CHECKOUT)),
)
def test_facts_are_taken_from_ansible_facts(path):
    """As variables of their own they are not there with inject_facts_as_vars = false."""
    assert FACT.findall(path.read_text(encoding="utf-8")) == []


def test_the_search_for_facts_finds_them():
    assert FACT.findall("{{ ansible_distribution }} {{ ansible_facts.distribution }} {{ x.ansible_host }}") == [
        "ansible_distribution"
    ]


@pytest.fixture(scope="module", name="unmatched")
def _unmatched(tmp_path_factory):
    """What each playbook says of an inventory that is empty, and of a limit that leaves none of its hosts."""
    strangers = "all: {hosts: {stranger: }, children: {providers: {hosts: {p1: }}, homes: {hosts: {h1: }}}}"

    base = tmp_path_factory.mktemp("unmatched")

    def both(path):
        directory = base / path.stem
        directory.mkdir()
        return (
            run(path.stem, directory),
            run(path.stem, directory, "--limit", "stranger", "-e", "x=1", inventory=strangers),
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip((path.stem for path in PLAYBOOKS), pool.map(both, PLAYBOOKS)))


@pytest.mark.parametrize("name", [path.stem for path in PLAYBOOKS])
def test_none_ends_well_where_nothing_matches_it(unmatched, name):
    empty, limited = unmatched[name]
    assert limited.returncode != 0 and "--limit stranger leaves none of the hosts" in limited.stdout + limited.stderr
    # find and order work on the controller, and need nobody else.
    if name not in ("find", "order"):
        assert empty.returncode != 0 and "The inventory has no host in" in empty.stdout + empty.stderr


CONTRARY = {
    "ANSIBLE_STRATEGY": "free",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_ANY_ERRORS_FATAL": "true",
    "ANSIBLE_INJECT_FACT_VARS": "false",
    "ANSIBLE_FORCE_HANDLERS": "true",
    "ANSIBLE_HASH_BEHAVIOUR": "merge",
    "ANSIBLE_JINJA2_NATIVE": "true",
    "ANSIBLE_FORKS": "1",
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    "ANSIBLE_DIFF_ALWAYS": "true",
}


@pytest.mark.parametrize("callback", ["json", "jsonl"])
def test_a_callback_for_programs_prints_one_document(tmp_path, callback):
    machines = json.dumps({"virtuoso_machines": [{"name": "web1", "image": "tiny"}], "virtuoso_owner": "alice"})
    done = run("order", tmp_path, "-e", machines, ANSIBLE_STDOUT_CALLBACK=f"ansible.posix.{callback}", **CONTRARY)
    assert done.returncode == 0, done.stdout + done.stderr
    documents = [done.stdout] if callback == "json" else done.stdout.splitlines()
    events = [json.loads(document) for document in documents]
    assert events and "web1" in done.stdout
    # By another name of the strategy, such as that with its collection, jsonl tells of no task's begin.
    assert callback == "json" or "v2_playbook_on_task_start" in done.stdout


def test_people_get_the_table_under_settings_of_their_own(tmp_path):
    machines = json.dumps({"virtuoso_machines": [{"name": "web1", "image": "tiny"}], "virtuoso_owner": "alice"})
    done = run("order", tmp_path, "-e", machines, **CONTRARY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.split()[0:1] == ["web1"] for line in done.stdout.splitlines())


def tasks_of(path):
    """All tasks of a file, those in blocks too."""
    found, waiting = [], list(yaml.safe_load(path.read_text(encoding="utf-8")) or [])
    while waiting:
        task = waiting.pop()
        if isinstance(task, dict):
            found.append(task)
            waiting += [each for part in ("block", "rescue", "always") for each in task.get(part) or []]
    return found


@pytest.mark.parametrize(
    "path", sorted((CHECKOUT / "roles").glob("*/tasks/**/*.yml")), ids=lambda path: str(path.relative_to(CHECKOUT))
)
def test_a_task_that_runs_once_elsewhere_does_not_end_the_play_when_that_host_is_away(path):
    """Ansible ends the play for all hosts where a task with run_once doesn't reach its host, ignore_unreachable or not;
    without a report, and with a recap that counts no failure."""
    for task in tasks_of(path):
        if task.get("run_once") and task.get("delegate_to", "localhost") != "localhost":
            assert task.get("ignore_unreachable") is True and task.get("ignore_errors") is True, task["name"]
            assert task.get("register"), task["name"]
