"""What grading promises on every store: one grade a proof, the first; announced once; the label
that everybody sees.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from proofloop.bus import LocalBus
from proofloop.errors import BusError, StoreError
from proofloop.report.samples import read_samples
from proofloop.runs.costs import bills
from proofloop.runs.create import create_run
from proofloop.runs.labels import find_label, labels_of, proof_rows
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled
from proofloop.schema.records import Grade, Problem, derive_seed
from proofloop.store import Store, find_record, get_record, put_record
from proofloop_labeler.review import cases, grading
from proofloop_labeler.review.cases import Cases
from proofloop_labeler.review.grading import Announcer
from proofloop_labeler.review.pages import Pages
from tests.builders import PROOF, RUN, label, proof, put_case, runspec
from tests.contract.test_store_contract import SUBJECTS, open_subject
from tests.waiting import wait_until


@pytest.fixture(params=SUBJECTS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_subject(request, tmp_path) as subject:
        yield subject.store


CASE = f"/runs/{RUN}/proofs/{PROOF}"
HERE = {"Origin": "http://localhost"}
FORM = {"score": "0.5", "by": "Emmy Noether", "comment": "Step 2 is missing."}
PERSONS = label(0.5, outcome="rejected", kind="rejected_upheld", critiques=(0,), by="Emmy Noether")


class HearingBus(LocalBus):
    """Keeps what was published; while it is `away` it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.activity: list[Event] = []
        self.away = False

    def publish(self, events: Iterable[Event]) -> None:
        if self.away:
            raise BusError("the broker is away")
        self.activity.extend(events)


@dataclass
class Open:
    """A store with one undecided proof, a bus that records messages, and a browser on this
    machine.
    """

    store: Store
    bus: HearingBus = field(default_factory=HearingBus)
    announcers: list[Announcer] = field(default_factory=list)

    def browser(
        self, token: str | None = None, only: str | None = None, spot_checks: int = 0
    ) -> TestClient:
        """Each has a process of its own, as far as pages and announcer are concerned."""
        self.announcers.append(announcer := Announcer(self.store, self.bus))
        pages = Pages(self.store, Cases(self.store, spot_checks), announcer.announce, only=only)
        return TestClient(
            pages.app(token), base_url="http://localhost", headers=HERE, follow_redirects=False
        )

    def settle(self) -> list[Event]:
        """Let every announcer finish; what was activity."""
        for announcer in self.announcers:
            announcer.close(grace_s=20)
        return self.bus.activity


@pytest.fixture
def page(store: Store) -> Iterator[Open]:
    create_run(store, runspec(), resume=False)
    put_case(store)
    opened = Open(store)
    yield opened
    opened.settle()


def test_a_grade_becomes_the_label_that_everybody_sees_and_is_announced_once(page: Open) -> None:
    browser = page.browser()
    answer = browser.post(CASE, data=FORM)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/runs/{RUN}/next?after={PROOF}&saved={PROOF}",
    )
    grade = get_record(page.store, keys.grade(RUN, PROOF), Grade)
    assert grade == Grade(score=0.5, by="Emmy Noether", comment="Step 2 is missing.", label=PERSONS)
    assert find_label(page.store, RUN, PROOF) == PERSONS
    assert list(labels_of(page.store, RUN)) == [PERSONS]
    assert [bill.label for bill in bills(page.store, RUN)] == [PERSONS]
    assert [sample.label for sample in read_samples(page.store, runspec(), [PROOF])] == [PERSONS]
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_of_two_graders_the_first_is_heard_and_the_second_sees_why_not(page: Open) -> None:
    page.browser().post(CASE, data=FORM)
    late = page.browser().post(
        CASE, data={"score": "1", "by": "Emil", "comment": "All <b>fine</b>."}
    )
    assert late.status_code == 409
    assert "Emmy Noether graded this proof before you, so your grade (1) was not saved" in late.text
    assert "Step 2 is missing." in late.text and "All &lt;b&gt;fine&lt;/b&gt;." in late.text
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_of_many_graders_at_the_same_moment_exactly_one_is_heard(page: Open) -> None:
    names = [f"grader-{number}" for number in range(8)]
    barrier = threading.Barrier(len(names))

    def grade(name: str) -> int:
        browser = page.browser()
        barrier.wait()
        return browser.post(CASE, data={**FORM, "by": name}).status_code

    with ThreadPoolExecutor(len(names)) as pool:
        answers = dict(zip(names, pool.map(grade, names), strict=True))
    winner = get_record(page.store, keys.grade(RUN, PROOF), Grade).by
    assert answers == {name: 303 if name == winner else 409 for name in names}


def test_the_same_form_sent_twice_is_no_quarrel(page: Open) -> None:
    browser = page.browser()
    assert [browser.post(CASE, data=FORM).status_code for _ in range(2)] == [303, 303]
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_an_unannounced_grade_is_announced_at_the_next_start(page: Open) -> None:
    put_record(
        page.store, keys.grade(RUN, PROOF), Grade(score=0.5, by="E", comment="", label=PERSONS)
    )
    for _ in range(2):
        page.announcers.append(next_one := Announcer(page.store, page.bus))
        next_one.announce(RUN)
        page.settle()
    assert page.bus.activity == [ProofLabeled.of(PERSONS)]


def test_a_grade_waits_for_a_broker_that_is_away(
    page: Open, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> None:
    monkeypatch.setattr(grading, "RETRY_S", 0.05)
    page.bus.away = True
    assert page.browser().post(CASE, data=FORM).status_code == 303
    time.sleep(0.3)
    assert find_record(page.store, keys.announcement(RUN, PROOF), ProofLabeled) is None
    page.bus.away = False
    assert wait_until(lambda: page.bus.activity == [ProofLabeled.of(PERSONS)], 60)
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_a_check_of_a_label_changes_and_announces_nothing_and_is_counted(page: Open) -> None:
    for number, score in enumerate((1.0, 0.5, 0.5), 1):
        put_decided(page.store, f"p2-{number:03d}", score)
    browser = page.browser(spot_checks=2)
    offered = [
        f"p2-{number:03d}"
        for number in (1, 2, 3)
        if f"/proofs/p2-{number:03d}" in browser.get(f"/runs/{RUN}").text
    ]
    assert len(offered) == 2
    assert [
        browser.post(f"/runs/{RUN}/proofs/{name}", data={**FORM, "score": "1"}).status_code
        for name in offered
    ] == [
        303,
        303,
    ]
    labels = {found.proof_id: found for found in labels_of(page.store, RUN)}
    assert all(labels[name].by == "labeler" for name in offered)
    agreeing = sum(labels[name].score == 1.0 for name in offered)
    assert f"<dd>{agreeing} of 2" in browser.get(f"/runs/{RUN}").text
    put_record(
        page.store, keys.problem(RUN, "p2"), Problem(id="p2", question="Prove that $2n$ is even.")
    )
    scores = {row["by"]: row["score"] for row in proof_rows(page.store, RUN, people=False)}
    assert scores == {
        "Emmy Noether": 1.0,
        "labeler": next(labels[n].score for n in labels if n not in (*offered, PROOF)),
    }
    assert page.settle() == []


def test_lots_are_drawn_once_however_often_a_page_is_asked_for(
    page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put_decided(page.store, f"p2-{number:03d}", 1.0)
    drawn: list[object] = []
    monkeypatch.setattr(
        cases, "derive_seed", lambda *parts: drawn.append(parts) or derive_seed(*parts)
    )
    for spot_checks in (0, 2):
        browser = page.browser(spot_checks=spot_checks)
        for _ in range(3):
            browser.get(f"/runs/{RUN}")
    assert len(drawn) == 2 * 4  # a label each, in each of two processes


def test_a_label_that_is_decided_and_not_drawn_is_not_graded(page: Open) -> None:
    put_decided(page.store, "p2-001", 1.0)
    answer = page.browser().post(f"/runs/{RUN}/proofs/p2-001", data=FORM)
    assert (answer.status_code, find_record(page.store, keys.grade(RUN, "p2-001"), Grade)) == (
        409,
        None,
    )
    assert "has a label and is not in the sample to check. The grade was not saved." in answer.text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"score": ""}, "Choose a score: 1, 0.5 or 0."),
        ({"score": "2"}, "Choose a score: 1, 0.5 or 0."),
        ({"by": "  "}, "Enter your name"),
        ({"by": "x" * 81}, "A name has at most 80 printable characters; this one has 81."),
        ({"by": "a\u202eb"}, "A name has at most 80 printable characters"),
        ({"by": "labeler"}, "is the name of the labeling service"),
        ({"comment": "x" * 10_001}, "The comment has 10001 characters; the limit is 10000."),
    ],
)
def test_a_form_that_is_wrong_says_so_and_keeps_what_was_written(
    page: Open, changes: dict[str, str], problem: str
) -> None:
    answer = page.browser().post(CASE, data={**FORM, "comment": "Kept words", **changes})
    assert answer.status_code == 400
    assert problem in answer.text
    assert changes.get("comment", "Kept words") in answer.text
    assert find_record(page.store, keys.grade(RUN, PROOF), Grade) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://evil.example", "Host": "evil.example"}, 400),
    ],
)
def test_a_form_is_taken_from_this_page_only(
    page: Open, headers: dict[str, str], status: int
) -> None:
    assert page.browser().post(CASE, data=FORM, headers=headers).status_code == status
    assert (find_record(page.store, keys.grade(RUN, PROOF), Grade) is not None) == (status == 303)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8321", 200),
        ("localhost", 200),
        ("[::1]:8321", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
    ],
)
def test_without_a_password_only_this_machines_own_names_are_answered(
    page: Open, host: str, status: int
) -> None:
    assert page.browser().get(CASE, headers={"Host": host}).status_code == status


def test_with_a_password_nothing_is_seen_without_it(page: Open) -> None:
    browser = page.browser(token="a long word")
    for where in ("/", f"/runs/{RUN}", CASE, "/style.css", "/none"):
        assert browser.get(where).status_code == 401
        assert browser.get(where, headers=basic("Emmy", "another word")).status_code == 401
        assert PROOF not in browser.get(where, headers=basic("Emmy", "")).text
    assert browser.post(CASE, data=FORM).status_code == 401
    welcome = browser.get(
        CASE, headers={**basic("Emmy", "a long word"), "Host": "review.example.org"}
    )
    assert welcome.status_code == 200
    assert 'value="Emmy"' in welcome.text


def test_every_answer_forbids_scripts(page: Open) -> None:
    put_case(
        page.store,
        "p1-001",
        solution="</div><script>alert(1)</script> $\\text{<script>alert(1)</script>}$",
    )
    browser = page.browser()
    for where in (f"/runs/{RUN}", f"/runs/{RUN}/proofs/p1-001", "/none", "/style.css"):
        answer = browser.get(where)
        assert answer.headers["content-security-policy"].startswith(
            "default-src 'none'; style-src 'self';"
        )
        assert "<script" not in answer.text
        assert ' style="' not in answer.text


def test_a_proof_of_100_kb_is_shown_whole(page: Open) -> None:
    solution = "Let $x_1 = 2$, then " * 5_000
    put_case(page.store, "p1-001", solution=solution)
    assert solution in page.browser().get(f"/runs/{RUN}/proofs/p1-001").text  # as it was written


def test_no_text_turns_the_page_around(page: Open) -> None:
    put_case(page.store, "p1-001", solution="It is 1\u202e or 2.")
    shown = page.browser().get(f"/runs/{RUN}/proofs/p1-001").text
    assert "\u202e" not in shown
    assert shown.count("It is 1⟨U+202E⟩ or 2.") == 2  # set, and as it was written


def test_skipping_goes_through_all_that_waits_and_begins_again(page: Open) -> None:
    for number in (1, 2):
        put_case(page.store, f"p1-{number:03d}")
    browser, seen, where = page.browser(), list[str](), f"/runs/{RUN}/next?after="
    for _ in range(4):
        seen.append(browser.get(where).headers["location"].rpartition("/")[2])
        where = f"/runs/{RUN}/next?after={seen[-1]}"
    assert seen == ["p1-000", "p1-001", "p1-002", "p1-000"]


def test_the_order_is_open_proofs_then_checks_then_skipped_proofs(
    page: Open,
) -> None:
    put_case(page.store, "p1-001")
    for name in ("p0-000", "p2-000"):
        put_decided(page.store, name, 1.0)
    browser, seen, where = (
        page.browser(spot_checks=2),
        list[str](),
        f"/runs/{RUN}/next?after={PROOF}",
    )
    for _ in range(3):  # the first is skipped, the others are graded
        where = browser.get(where).headers["location"].partition("?")[0]
        seen.append(where.rpartition("/")[2])
        where = browser.post(where, data=FORM).headers["location"]
    assert seen == ["p1-001", "p0-000", "p2-000"]
    assert browser.get(where).headers["location"] == f"{CASE}?saved=p2-000"


def test_who_begins_comes_to_the_only_proof_that_waits(page: Open) -> None:
    assert page.browser().get(f"/runs/{RUN}/next").headers["location"] == CASE


def test_people_who_begin_do_not_all_begin_with_the_same_proof(page: Open) -> None:
    for number in range(1, 10):
        put_case(page.store, f"p1-{number:03d}")
    browser = page.browser()
    assert len({browser.get(f"/runs/{RUN}/next").headers["location"] for _ in range(40)}) > 1


def test_after_the_last_grade_comes_the_list(page: Open) -> None:
    browser = page.browser()
    after = browser.post(CASE, data=FORM).headers["location"]
    assert browser.get(after).headers["location"] == f"/runs/{RUN}?saved={PROOF}"
    shown = browser.get(f"/runs/{RUN}?saved={PROOF}").text
    assert "No proof waits" in shown and "Step 2 is missing." in shown
    assert f"Saved: {PROOF} has" in shown


@pytest.mark.parametrize(
    "where", ["/runs/none", f"/runs/{RUN}/proofs/none", "/runs/..%2F..%2Fetc", "/runs/a/b/c", "/x"]
)
def test_what_is_not_there_is_said_to_be_not_there(page: Open, where: str) -> None:
    answer = page.browser().get(where)
    assert answer.status_code == 404
    assert "This did not work." in answer.text


def test_a_page_for_one_run_shows_no_other(page: Open) -> None:
    create_run(page.store, runspec("other"), resume=False)
    browser = page.browser(only="other")
    assert browser.get("/").headers["location"] == "/runs/other"
    assert browser.get(CASE).status_code == 404


def test_while_the_store_is_away_the_grader_is_told_to_send_it_again(
    page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = page.browser()
    monkeypatch.setattr(page.store, "put_if_absent", away)
    answer = browser.post(CASE, data=FORM)
    assert answer.status_code == 503
    assert "Go back in your browser" in answer.text
    monkeypatch.undo()
    assert browser.post(CASE, data=FORM).status_code == 303
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def put_decided(store: Store, proof_id: str, score: float) -> None:
    put_record(store, keys.proof(RUN, proof_id), proof(id=proof_id, problem_id="p2", group="p2"))
    put_record(
        store,
        keys.label(RUN, proof_id),
        label(score, proof_id=proof_id, problem_id="p2", group="p2"),
    )


def away(key: str, data: bytes, *, durable: bool = False) -> bool:
    raise StoreError("the store is away")


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}
