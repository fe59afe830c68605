"""The page shows what an incident holds, in one file that loads nothing, whatever the incident holds."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import stat
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser.incidents import early, everything, stack, with_text, write
from watchdog_hook.cli import flame, main, page, store, timeline, wording
from watchdog_hook.core import report
from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.model import CallRecord, Deed, Incident, Sample, Snapshot, ThreadStack
from watchdog_hook.core.observed import Iteration, Observed

ROOT = Path(__file__).parents[2]
EVIL = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><svg onload=alert(1)>",
    "<!--",
    "]]>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
)
VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """A page's elements and its texts, as a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def shown(self) -> str:
        """What a reader sees, in one line."""
        hidden = ("style", "script", "title")
        return " ".join(" ".join(text for tag, text in self.texts if tag not in hidden).split())

    def within(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def html_of(directory: Path, incident: Incident, **files: str | None) -> str:
    return page.render(store.load(write(directory, incident, **files)))[0].decode()


@pytest.fixture
def whole(tmp_path) -> str:
    return html_of(tmp_path, everything(), faulthandler="Thread 0x7f\n", py_spy="Thread 7 (idle)\n")


@pytest.fixture
def run(capsysbinary, tmp_path):
    def command(*arguments: str) -> tuple[int, bytes, str]:
        code = 0
        try:
            code = main(["show", *arguments, "--incident-dir", str(tmp_path)])
        except SystemExit as leaving:
            code = leaving.code
        shown = capsysbinary.readouterr()
        return code, shown.out, shown.err.decode()

    return command


# What it is made of


def test_a_page_is_well_formed_and_loads_nothing(whole):
    read = Page(whole)

    assert read.open == []
    assert {name for name, _ in read.elements} & {
        "link",
        "img",
        "iframe",
        "object",
        "base",
    } == set()
    for name, attributes in read.elements:
        assert not {"src", "style", "srcset", "action", "data"} & attributes.keys(), name
        assert not [key for key in attributes if key.startswith("on")], name
        assert (attributes.get("href") or "#").startswith("#"), name


def test_every_link_within_the_page_leads_somewhere(whole):
    read = Page(whole)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]

    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in read.named("a")}
    assert links == {"#time", "#flames", "#kernel", "#calls", "#process", "#threads"}
    assert {link.removeprefix("#") for link in links if link} <= set(ids)


def test_the_policy_forbids_every_connection_and_every_script_but_our_own(whole):
    (policy,) = [
        each["content"] or ""
        for each in Page(whole).named("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    ]
    allowed = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hashed(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", whole, re.S)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert allowed == {
        "default-src": "'none'",
        "style-src": hashed("style"),
        "script-src": hashed("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert whole.index("Content-Security-Policy") < whole.index("<style>")


# What it shows


def test_a_page_shows_all_that_an_incident_holds(whole):
    shown = Page(whole).shown
    incident = everything()
    texts = [
        incident.finding.sentence,
        "high confidence",
        *incident.finding.signs,
        '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]}',
        "reaches the executor's calls that have no timeout, PATCH too.",
        "ended after 61 s",
        "6 task instances",
        "2026-11-22 23:53:51Z",
        "pid 7, job 18",
        report.fingerprint(incident),
        "raise StuckApiCall by signal: landed",
        "16 samples, 15 s to 30 s of silence",
        "600 samples while all was well",
        "recvfrom",
        "10.244.3.17:48122 → 10.96.0.1:443",
        "ESTABLISHED",
        "self.lock of logging.StreamHandler",
        "ReadTimeoutError",
        "6, the oldest for 31 s",
        "Watcher of airflow-ml , pid 49",
        "never wakes: it waits for a lock whose owner was not copied by the fork",
        "773 MiB of 2.0 GiB",
        "<1 % of a core",
        "61 of 1048576",
        "14 threads like this",
        "2 threads like this",
        "ThreadPoolExecutor-0_0 (tid 40), ThreadPoolExecutor-0_1 (tid 41)",
        "apache-airflow-providers-cncf-kubernetes 10.25.0",
        "interrupt_after 60",
        "child 48's system call Permission denied",
        "Thread 0x7f",
        "Thread 7 (idle)",
    ]

    assert [text for text in texts if text not in shown] == []
    assert "This incident has nothing of" not in shown


def test_every_cell_says_its_column_for_a_screen_too_narrow_for_columns(whole):
    tables = re.findall(r"<table>(.*?)</table>", whole, re.S)

    assert len(tables) == 3
    for table in tables:
        columns = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table)
        for row in re.findall(r"<tr[^>]*>(<td.*?)</tr>", table, re.S):
            assert re.findall(r'<td data-label="([^"]*)"', row) == columns


def test_of_an_early_incident_sections_without_evidence_are_left_out_and_named(tmp_path):
    html = html_of(tmp_path, early())
    headings = re.findall(r"<h2>(.*?)</h2>", html)

    assert headings == [
        "What it rests on",
        "What you can change",
        "Time line",
        "Where the time went",
        "Calls",
        "Threads",
        "What is not here",
        "Files",
    ]
    shown = Page(html).shown
    assert "the one stack of the dump: no samples were taken" in shown
    assert (
        "This incident has nothing of: samples of the stall, samples of the healthy loop, turns of the"
        " loop, what the thread waits on in the kernel, locks, executors, process and children, actions."
    ) in shown
    assert "end not seen" in shown
    assert "threads like this" not in shown


def test_the_page_of_a_dump_that_was_asked_for_while_the_loop_turned_speaks_of_no_stall(tmp_path):
    whole = everything()
    finding = diagnose(whole.snapshot, silence=0.2, phase=whole.phase, how="asked")
    asked = whole.evolve(
        finding=finding,
        silence_s=0.2,
        first_dump=whole.began + 0.2,
        ended=whole.began + 0.2,
        actions=(Deed(0.2, "dump", None, "asked for by watchdog-hook dump"),),
    )
    alone = early().evolve(finding=finding, silence_s=0.2)

    assert finding.id == "no-stall"
    for number, incident in enumerate((asked, alone)):
        read = Page(html_of(tmp_path / str(number), incident))
        labels = [each.get("aria-label") or "" for _, each in read.elements]
        texts = [text for tag, text in read.texts if tag not in ("style", "script", "title", "pre")]
        said = " ".join(" ".join([*texts, *labels]).split()).replace("no-stall", "")
        assert not re.search(r"stall|of silence|silent (in all|for)", said, re.IGNORECASE)
        assert "healthy samples" not in said  # where a stall leaves them
        assert "The dump that was asked for" in said
        assert "Since the last beat 0.2 s" in said
    assert "in this dump" in html_of(tmp_path / "again", asked)


def test_the_stalled_thread_stands_open_and_alone_before_the_folded_ones(tmp_path):
    (stalled, *_) = everything().snapshot.threads
    twin = ThreadStack(9, "twin", stalled.frames)
    one, two = page.fold((stalled, twin))
    html = html_of(tmp_path, early().evolve(snapshot=Snapshot((stalled, twin, twin))))

    assert [thread.name for thread in one.threads] == ["MainThread"]
    assert [thread.name for thread in two.threads] == ["twin"]
    assert re.findall(r'<details class="stack"(.*?)>\s*<summary>\s*<b>(.*?)</b>', html) == [
        (" open", "MainThread"),
        ("", "twin"),
    ]
    assert "2 threads like this" in html


def test_tasks_stand_behind_the_threads_those_in_one_place_together(whole):
    shown = Page(whole).shown

    after = shown.partition("Tasks of asyncio")[2]
    assert "(ID 7) running" in after
    assert "waits for Future 12 tasks like this AcmeTrigger.run" in after
    assert "acme_trigger.py:31" in after


def test_a_long_file_is_cut_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "TEXT_LIMIT", 10)

    shown = Page(html_of(tmp_path, early(), dump="0123456789 and the rest")).shown

    assert "23 characters, the first 10 are here" in shown
    assert "0123456789" in shown
    assert "and the rest" not in shown


# Whatever the texts are


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_of_an_incident_becomes_more_than_text(tmp_path, evil):
    def page_of(text: str, where: str) -> Page:
        incident = with_text(everything(), text).evolve(id=everything().id)
        return Page(html_of(tmp_path / where, incident, dump=text, faulthandler=text))

    harmless, read = page_of("x" * len(evil), "harmless"), page_of(evil, "evil")

    def shape(page: Page) -> list[tuple[str, list[str]]]:
        return [(name, sorted(attributes)) for name, attributes in page.elements]

    assert shape(read) == shape(harmless)
    assert read.within("script") == harmless.within("script")
    assert read.within("style") == harmless.within("style")
    assert " ".join(evil.split()) in read.shown


def test_what_is_wrong_with_an_incident_and_the_name_of_its_folder_are_text_too(tmp_path):
    name = "20261101T101500Z-<script>alert(1)<!-7-1"
    folder = write(tmp_path, early().evolve(id=name))
    data = json.loads((folder / "incident.json").read_text())
    (folder / "incident.json").write_text(json.dumps({**data, "schema": EVIL[0]}))

    html, damage = page.render(store.load(folder))
    read = Page(html.decode())

    assert EVIL[0] in damage[0]
    assert EVIL[0] in read.shown
    assert name in read.shown
    assert len(read.named("script")) == 1


def test_what_has_no_shape_is_shown_by_its_escape(tmp_path):
    odd = "a\x00b\x1b[2Jc\u202ed\ud800e\u2028f"
    html = html_of(tmp_path, with_text(everything(), odd).evolve(id=everything().id), dump=None)

    assert r"a\x00b\x1b[2Jc\u202ed\ud800e\u2028f" in Page(html).shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]", html)


def changed(value, rng: random.Random, rate: float):
    """Return JSON with some of its values replaced by others that do not belong there."""
    odd = [None, True, -1, 0, 10**30, 1e308, -1e308, 0.5, "", "x", [], {}, [None], [[]], {"": []}]
    if rng.random() < rate:
        return rng.choice([*odd, float("nan"), float("inf")])
    if isinstance(value, list):
        return [changed(each, rng, rate) for each in value]
    if isinstance(value, dict):
        return {key: changed(each, rng, rate) for key, each in value.items() if rng.random() > rate}
    return value


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.2])
def test_of_any_damaged_incident_there_is_a_page(tmp_path, rate):
    folder = write(tmp_path, everything())
    data = json.loads((folder / "incident.json").read_text())
    for seed in range(25):
        damaged = changed(data, random.Random(seed), rate)
        (folder / "incident.json").write_text(json.dumps(damaged))

        html, _ = page.render(store.load(folder))

        read = Page(html.decode())
        assert read.open == [], seed
        numbers = [
            each[key] or ""
            for name in ("svg", "rect")
            for each in read.named(name)
            for key in ("x", "width")
            if key in each
        ]
        assert not [text for text in numbers if not re.fullmatch(r"-?[\d.]+%?", text)], seed


# Where it goes


def test_a_page_is_written_for_its_owner_only(run, tmp_path):
    write(tmp_path, everything())
    out = tmp_path / "page.html"

    assert run("latest", "--html", str(out)) == (0, b"", "")
    assert out.read_bytes().startswith(b"\n<!doctype html>") or out.read_bytes().startswith(
        b"<!doctype"
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_file_that_is_there_stays_as_it_is_until_force_is_said(run, tmp_path):
    write(tmp_path, everything())
    out = tmp_path / "page.html"
    out.write_text("precious")
    out.chmod(0o644)

    code, _, err = run("latest", "--html", str(out))

    assert code == 2
    assert "--force" in err
    assert out.read_text() == "precious"
    assert run("latest", "--html", str(out), "--force")[0] == 0
    assert b"kubernetes-api-silent" in out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == [everything().id, "page.html"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_link_is_not_followed_without_force_and_stays_a_link_with_it(run, tmp_path, force):
    write(tmp_path, everything())
    link, target = tmp_path / "link.html", tmp_path / "elsewhere.html"
    link.symlink_to(target)

    code = run("latest", "--html", str(link), *force)[0]

    assert code == (0 if force else 2)
    assert link.is_symlink()
    assert target.exists() == bool(force)


def test_a_directory_and_a_place_that_is_not_there_are_usage_errors(run, tmp_path):
    write(tmp_path, everything())

    code, _, err = run("latest", "--html", str(tmp_path), "--force")
    assert (code, "is a directory" in err) == (2, True)
    code, _, err = run("latest", "--html", str(tmp_path / "no" / "page.html"))
    assert (code, "cannot be written (No such file or directory)" in err) == (2, True)


def test_a_dash_is_standard_output(run, tmp_path):
    write(tmp_path, everything())

    code, out, err = run("latest", "--html", "-")

    assert (code, err) == (0, "")
    assert Page(out.decode()).open == []


def test_a_pipe_is_written_into_and_not_replaced(run, tmp_path):
    write(tmp_path, everything())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()

    assert run("latest", "--html", str(pipe), "--force")[0] == 0
    reader.join()
    assert b"kubernetes-api-silent" in got[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_of_a_damaged_incident_what_can_be_read_is_written_with_exit_code_1(run, tmp_path):
    folder = write(tmp_path, everything())
    (folder / "incident.json").write_text('{"schema": 1, "id"')
    out = tmp_path / "page.html"

    code, _, err = run("latest", "--html", str(out))

    shown = Page(out.read_text()).shown
    assert code == 1
    assert err.startswith(f"{everything().id}: incident.json is not JSON")
    assert "Damaged: this page has what could be read incident.json is not JSON" in shown
    assert "watchdog_hook: event=dump" in shown


@pytest.mark.parametrize("lost", ["id", "began", "verdict", "threads", "dump.txt"])
def test_an_incident_that_lacks_something_has_a_page_that_says_so(run, tmp_path, lost):
    folder = write(tmp_path, everything(), **({"dump": None} if lost == "dump.txt" else {}))
    data = json.loads((folder / "incident.json").read_text())
    data.pop(lost, None)
    (folder / "incident.json").write_text(json.dumps(data))
    out = tmp_path / "page.html"

    code, _, err = run("latest", "--html", str(out))

    assert code == 1
    assert lost in err
    assert (
        f"Damaged: this page has what could be read {err.partition(': ')[2].strip()}"
        in Page(out.read_text()).shown
    )


def test_without_jinja2_it_is_said_how_to_get_it(tmp_path):
    write(tmp_path, everything())
    program = (
        "import sys\nsys.modules['jinja2'] = None\nfrom watchdog_hook.cli import main\n"
        f"main(['show', 'latest', '--html', '-', '--incident-dir', {str(tmp_path)!r}])\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert shown.returncode == 2
    assert "pip install Jinja2" in shown.stderr
    assert "Traceback" not in shown.stderr


# Flame graphs

A, B, C, D = (
    stack(f"{name} /dags/{name}.py:{line}")[0] for name, line in zip("abcd", range(4), strict=True)
)


def boxes(graph: flame.Flame | None) -> dict[str, flame.Box]:
    assert graph is not None
    return {box.function: box for box in graph.boxes}


def test_a_box_is_as_wide_as_its_share_and_lies_within_its_caller():
    found = boxes(flame.pair([((C, B, A), 3), ((D, A), 1)], []).stall)

    assert {name: box.width for name, box in found.items()} == {
        "all": 1,
        "a": 1,
        "b": 0.75,
        "c": 0.75,
        "d": 0.25,
    }
    assert (found["c"].left, found["d"].left) == (0, 0.75)
    assert (found["c"].own, found["b"].own, found["d"].own) == (3, 0, 1)
    assert (found["a"].depth, found["c"].depth) == (1, 3)
    assert found["a"].elsewhere is None


def test_lines_of_one_function_are_one_box_that_names_them():
    other = stack("a /dags/a.py:77")[0]
    found = boxes(flame.pair([((B, A), 1), ((B, other), 1)], []).stall)

    assert found["a"].place == "/dags/a.py:0, 77"
    assert found["b"].width == 1


def test_each_graph_has_the_other_ones_shares_and_neither_the_callers_that_all_have():
    pair = flame.pair([((C, B, A), 4)], [((C, B, A), 1), ((D, B, A), 3)])
    stall, normal = boxes(pair.stall), boxes(pair.normal)

    assert pair.stall.outer == pair.normal.outer == 1
    assert "a" not in stall
    assert (stall["b"].elsewhere, stall["c"].elsewhere) == (1, 0.25)
    assert (normal["c"].elsewhere, normal["d"].elsewhere) == (1, 0)


def test_where_the_stall_leaves_the_healthy_loop_is_said():
    new = flame.pair([((C, B, A), 4), ((D, A), 1)], [((D, B, A), 3), ((D, A), 1)])
    known = flame.pair([((C, B, A), 4)], [((C, B, A), 1), ((D, B, A), 199)])

    assert new.parting == (
        "75 % of 4 healthy samples pass through b; none goes on into c, where the stall is."
    )
    assert known.parting == (
        "The healthy loop is seen here too: c has under 1 % of 200 healthy samples."
        " What is new is that it does not return."
    )
    assert flame.pair([((C, B, A), 4)], []).parting is None


def test_a_stack_as_deep_as_python_allows_is_laid_out():
    deep = tuple(stack(f"f{n} /dags/f.py:{n}")[0] for n in range(20_000))

    graph = flame.pair([(deep, 1)], []).stall

    assert graph.depth == 20_000
    assert graph.boxes[-1].function == "f0"


def test_what_nobody_could_see_is_left_out_and_empty_stacks_are_no_samples():
    graph = flame.pair([((A,), 5000), ((B,), 1), ((), 9)], []).stall

    assert [box.function for box in graph.boxes] == ["all", "a"]
    assert graph.samples == 5001
    assert flame.pair([((), 3)], []) == flame.Pair(None, None, None)


# The time line


def line_of(**changes) -> timeline.Timeline:
    return timeline.timeline(early().evolve(**changes))


def lanes(panel: timeline.Panel) -> dict[str, timeline.Lane]:
    return {lane.name: lane for lane in panel.lanes}


def test_the_time_before_and_the_silence_have_a_scale_each_and_the_same_rows():
    before, silence = timeline.timeline(everything()).panels

    assert before.heading == "the last 19 s before"
    assert silence.heading == "the silence, 61 s"
    assert list(lanes(before)) == list(lanes(silence))[: len(before.lanes)]
    assert list(lanes(silence)) == [
        "loop",
        "phases",
        "calls, MainThread",
        "calls, acme-audit",
        "samples",
        "deeds",
    ]
    for panel in (before, silence):
        for lane in panel.lanes:
            assert all(0 <= bar.left <= bar.left + bar.width <= 1.000001 for bar in lane.bars)
            assert all(0 <= mark.left <= 1 for mark in lane.marks)


def test_what_was_not_seen_after_the_dump_is_told_apart():
    call, rest = lanes(line_of().panels[0])["calls, MainThread"].bars

    assert (call.kind, rest.kind) == ("open", "open inferred")
    assert call.left + call.width == pytest.approx(30.2 / 61.4)
    assert rest.left + rest.width == 1
    assert "no answer up to the dump" in call.told


def test_a_sample_tells_whether_the_stack_has_moved():
    samples = tuple(Sample(float(n), frames) for n, frames in enumerate([(A,), (A,), (B,)], 15))
    snapshot = Snapshot((), samples)

    marks = lanes(line_of(snapshot=snapshot).panels[0])["samples"].marks

    assert [mark.kind for mark in marks] == ["same", "same", "moved"]


def test_deeds_that_would_hide_each_other_are_one_mark():
    deeds = (Deed(30.0, "a"), Deed(60.0, "b"), Deed(60.1, "c"), Deed(60.2, "d", outcome="landed"))

    marks = lanes(line_of(actions=deeds).panels[0])["deeds"].marks

    assert [mark.label for mark in marks] == ["dump", "1", "2-4"]
    assert marks[2].told.endswith("; at 60 s: d: landed")


def test_what_was_long_before_is_left_out_with_its_number():
    turns = tuple(Iteration(ago, 1.0) for ago in (4000.0, 3000.0, 131.0))
    calls = (CallRecord("GET /x", None, "t", 9000.0, 0.1, "200"),)
    snapshot = Snapshot((), recent=calls, observed=Observed(iterations=turns))

    found = line_of(snapshot=snapshot)

    assert found.earlier == 3
    assert found.panels[0].heading == "the last 101 s before"


def test_an_incident_with_nothing_but_its_silence_has_a_time_line():
    found = line_of(snapshot=Snapshot(()), began=0.0, first_dump=0.0, silence_s=0.0)

    assert [panel.heading for panel in found.panels] == ["the silence, 1 s"]
    assert found.phases == ()


# Words and numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (float("nan"), "?"),
        (1e300, "?"),
        (0, "0 s"),
        (0.0042, "4 ms"),
        (0.25, "0.2 s"),
        (3.0, "3 s"),
        (9.96, "10 s"),
        (61.4, "61 s"),
        (180, "3 min"),
        (431.2, "7 min 11 s"),
        (86_120, "23 h 55 min"),
        (864_000, "10 d"),
        (-12.4, "-12 s"),
    ],
)
def test_a_duration_has_the_unit_that_a_person_would_say(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (412_000_000, "393 MiB"),
        (10**40, "1152921504606846976 GiB"),
    ],
)
def test_a_size_has_its_unit(value, text):
    assert wording.size(value) == text


def test_only_the_setting_of_a_remedy_is_set_apart():
    lines = '[a_b] c = {"x": [1, 2]} bounds it.\nSet [a] b to 1.\n[a] b = 10,60\n'

    assert list(wording.remedy(lines)) == [
        ('[a_b] c = {"x": [1, 2]}', "bounds it."),
        ("", "Set [a] b to 1."),
        ("[a] b = 10,60", ""),
    ]


def test_a_share_that_is_there_is_never_nothing():
    assert [wording.percent(share) for share in (0, 0.0001, 0.5, 1)] == [
        "0 %",
        "<1 %",
        "50 %",
        "100 %",
    ]
    assert [wording.number(value) for value in (None, 2.0, 0.5, 100.0, 1 / 3)] == [
        "?",
        "2",
        "0.5",
        "100",
        "0.33",
    ]
