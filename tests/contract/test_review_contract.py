"""What grading promises on every store: each grade is kept, the last ones count, each change of a
label is announced, and a person grades blind.
"""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from proofloop.bus import LocalBus
from proofloop.errors import BusError, StoreError
from proofloop.report.samples import read_samples
from proofloop.runs.costs import bills
from proofloop.runs.create import create_run
from proofloop.runs.grading.history import grades_of
from proofloop.runs.labels import find_label, labels_of, scored_proofs
from proofloop.schema import keys
from proofloop.schema.events import Event, ProofLabeled
from proofloop.schema.records import Grade, Label, Mark, Problem, TrainingStep, derive_seed
from proofloop.store import Store, find_record, put_record
from proofloop.ui.access import Access, guarded_app
from proofloop_labeler.review import announcer, cases
from proofloop_labeler.review.announcer import Announcer
from proofloop_labeler.review.app import grading_app
from proofloop_labeler.review.cases import Cases, Offer
from proofloop_labeler.review.tasks import Subject, assigned
from tests.builders import (
    PROOF,
    RUN,
    label,
    proof,
    put_case,
    put_grade,
    runspec,
    undecided_label,
)
from tests.contract.test_store_contract import SUBJECTS, open_subject
from tests.waiting import wait_until


@pytest.fixture(params=SUBJECTS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_subject(request, tmp_path) as subject:
        yield subject.store


CASE = f"/runs/{RUN}/proofs/{PROOF}"
ANALYSIS = f"{CASE}/critique-0"
HERE = {"Origin": "http://localhost"}
EMMY = "Emmy Noether"
FORM = {"score": "0.5", "comment": "Step 2 is missing."}
PERSONS = label(0.5, outcome="rejected", kind="rejected_upheld", critiques=(0,), by=EMMY, grade=0)


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
    """A store with one undecided proof, a bus that records messages, and people's browsers on this
    machine.
    """

    store: Store
    bus: HearingBus = field(default_factory=HearingBus)
    announcers: list[Announcer] = field(default_factory=list)

    def browser(
        self,
        person: str = EMMY,
        *,
        offer: Offer = Offer(),  # noqa: B008
        access: Access = Access(),  # noqa: B008
        only: str | None = None,
    ) -> TestClient:
        """Each has a process of its own, as far as pages and announcer are concerned."""
        self.announcers.append(announcer := Announcer(self.store, self.bus))
        pages = grading_app(self.store, Cases(self.store, offer), announcer.announce, only=only)
        return TestClient(
            guarded_app(pages, access),
            base_url="http://localhost",
            headers=HERE,
            cookies={"grader": quote(person)} if person else {},
            follow_redirects=False,
        )

    def grades(self, proof_id: str = PROOF, critique: int | None = None) -> tuple[Grade, ...]:
        return grades_of(self.store, RUN, proof_id, critique)

    def scores(self) -> list[tuple[str, float | None]]:
        return [(grade.by, grade.score) for grade in self.grades()]

    def label(self) -> Label | None:
        return find_label(self.store, RUN, PROOF)

    def settle(self) -> list[Event]:
        """Let every announcer finish; what was activity."""
        for each in self.announcers:
            each.close(grace_s=20)
        return self.bus.activity


@pytest.fixture
def page(store: Store) -> Iterator[Open]:
    create_run(store, runspec(), resume=False)
    put_case(store)
    opened = Open(store)
    yield opened
    opened.settle()


def test_a_grade_becomes_the_label_that_everybody_sees_and_is_announced_once(page: Open) -> None:
    answer = page.browser().post(CASE, data={**FORM, "mark": "2-3 Why\neven?"})
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/runs/{RUN}/next?after={PROOF}&saved={PROOF}",
    )
    (grade,) = page.grades()
    assert (grade.score, grade.by, grade.comment) == (0.5, EMMY, "Step 2 is missing.")
    assert grade.marks == (Mark(first=2, last=3, comment="Why\neven?"),)
    assert (grade.number, grade.is_blind, grade.checks_label) == (0, True, False)
    assert abs(grade.at_s - time.time()) < 60
    assert page.label() == PERSONS
    assert list(labels_of(page.store, RUN)) == [PERSONS]
    assert [bill.label for bill in bills(page.store, RUN)] == [PERSONS]
    assert [sample.label for sample in read_samples(page.store, runspec(), [PROOF])] == [PERSONS]
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_a_correction_keeps_the_history_and_the_last_grade_counts(page: Open) -> None:
    browser = page.browser()
    for score in ("0.5", "1"):
        assert browser.post(CASE, data={**FORM, "score": score}).status_code == 303
    assert page.scores() == [(EMMY, 0.5), (EMMY, 1.0)]
    found = page.label()
    assert found and (found.score, found.outcome, found.grade) == (1.0, "accepted", 1)
    assert page.settle()[-1] == ProofLabeled.of(found)


def test_undo_gives_the_labelers_label_back_and_the_form_its_words(page: Open) -> None:
    browser = page.browser()
    saved = browser.get(browser.post(CASE, data=FORM).headers["location"]).headers["location"]
    assert f'action="{CASE}/undo"' in browser.get(saved).text
    undone = browser.post(f"{CASE}/undo")
    assert (undone.status_code, undone.headers["location"]) == (303, f"{CASE}?undone=1")
    shown = browser.get(undone.headers["location"]).text
    assert "is withdrawn" in shown and "Step 2 is missing." in shown
    assert "Critiques" not in shown  # still blind: nothing was opened
    assert page.scores() == [(EMMY, 0.5), (EMMY, None)]
    assert page.label() == undecided_label(grade=1)
    assert browser.post(f"{CASE}/undo").status_code == 404
    assert page.settle()[-1] == ProofLabeled.of(undecided_label(grade=1))


def test_a_page_is_blind_until_the_first_grade(page: Open) -> None:
    browser = page.browser(offer=Offer(overlap=2))
    before = browser.get(CASE).text
    assert "Show critiques" in before
    assert not any(word in before for word in ("critique 0", "Meta-verifier", "Self-evaluation"))
    browser.post(CASE, data=FORM)
    after = browser.get(CASE).text
    name, grade = after.index("critique 0"), after.index(f'href="{ANALYSIS}"')
    assert name < grade < after.index("critique 1")  # one number for a critique everywhere
    again = browser.post(CASE, data={**FORM, "score": "1"})
    assert again.status_code == 303
    assert [grade.is_blind for grade in page.grades()] == [True, False]


def test_critiques_that_are_opened_first_are_recorded(page: Open) -> None:
    browser = page.browser()
    opened = browser.post(f"{CASE}/reveal")
    assert (opened.status_code, opened.headers["location"]) == (303, CASE)
    assert "critique 0" in browser.get(CASE).text
    assert "critique 0" not in page.browser("Emil").get(CASE).text
    browser.post(CASE, data=FORM)
    assert [grade.is_blind for grade in page.grades()] == [False]


def test_a_person_who_enters_a_name_after_reading_the_proofs_own_page_is_not_blind(
    page: Open,
) -> None:
    browser = page.browser("")
    asked = browser.get(f"{CASE}?read=1").text
    assert f'value="{CASE}?read=1"' in asked
    named = browser.post("/name", data={"name": EMMY, "to": f"{CASE}?read=1"})
    assert "critique 0" in browser.get(named.headers["location"]).text
    browser.post(CASE, data=FORM)
    assert [grade.is_blind for grade in page.grades()] == [False]


def test_a_second_grader_sees_the_first_grade_only_behind_their_own(page: Open) -> None:
    offer = Offer(overlap=2)
    page.browser(offer=offer).post(CASE, data=FORM)
    second = page.browser("Emil", offer=offer)
    for where in (CASE, f"/runs/{RUN}"):
        assert "Step 2 is missing." not in second.get(where).text
    assert second.get(f"/runs/{RUN}/next").headers["location"] == CASE
    second.post(CASE, data={"score": "0.5", "comment": "The base case."})
    assert all(words in second.get(CASE).text for words in ("Step 2 is missing.", "The base case."))
    found = page.label()
    assert found and (found.score, found.by, found.grade) == (0.5, "Emil", 1)
    third = page.browser("Sofya", offer=offer)
    assert third.get(f"/runs/{RUN}/next").headers["location"] == f"/runs/{RUN}"


def test_a_proof_has_no_label_while_people_disagree_until_it_is_settled(page: Open) -> None:
    offer = Offer(overlap=2)
    first, second = page.browser(offer=offer), page.browser("Emil", offer=offer)
    first.post(CASE, data=FORM)
    second.post(CASE, data={"score": "1"})
    assert page.label() == undecided_label(grade=1)
    listed = second.get(f"/runs/{RUN}/disagreements").text
    assert CASE in listed and "Step 2 is missing." in listed
    stranger = page.browser("Sofya", offer=offer)
    hidden = stranger.get(f"/runs/{RUN}/disagreements").text
    assert CASE in hidden and "Step 2 is missing." not in hidden
    assert "Save and settle" in second.get(CASE).text
    assert "Save and settle" not in stranger.get(CASE).text
    second.post(CASE, data={"score": "0", "settles": "1"})
    assert not page.grades()[-1].is_blind  # the list showed the other grade
    found = page.label()
    assert found and (found.score, found.by) == (0.0, "Emil")
    assert "Nobody disagrees" in first.get(f"/runs/{RUN}/disagreements").text


def test_agreement_of_two_people_is_on_the_page_of_the_run(page: Open) -> None:
    for number in range(1, 4):
        put_case(page.store, f"p1-{number:03d}")
    for person, scores in ((EMMY, ["0", "1", "1", "0"]), ("Emil", ["0", "1", "0", "0"])):
        browser = page.browser(person, offer=Offer(overlap=2))
        for number, score in enumerate(scores):
            browser.post(f"/runs/{RUN}/proofs/p1-{number:03d}", data={"score": score})
    shown = page.browser().get(f"/runs/{RUN}").text
    assert "Emil / Emmy Noether" in shown
    assert "<td>4</td><td>3</td><td>0.50</td>" in shown


def test_of_many_graders_at_the_same_moment_each_is_kept(page: Open) -> None:
    names = [f"grader-{number}" for number in range(8)]
    barrier = threading.Barrier(len(names))

    def grade(name: str) -> int:
        browser = page.browser(name)
        barrier.wait()
        return browser.post(CASE, data=FORM).status_code

    with ThreadPoolExecutor(len(names)) as pool:
        assert set(pool.map(grade, names)) == {303}
    assert sorted(grade.by for grade in page.grades()) == names
    assert [grade.number for grade in page.grades()] == list(range(8))


def test_the_same_form_sent_twice_is_one_grade(page: Open) -> None:
    browser = page.browser()
    form = {**FORM, "form": "f" * 32}
    assert [browser.post(CASE, data=form).status_code for _ in range(2)] == [303, 303]
    assert browser.post(CASE, data={**form, "score": "0"}).status_code == 303
    assert page.scores() == [(EMMY, 0.5), (EMMY, 0.0)]
    assert browser.post(CASE, data=form).status_code == 303  # the person changed it back
    assert page.scores() == [(EMMY, 0.5), (EMMY, 0.0), (EMMY, 0.5)]


def test_an_unannounced_grade_is_announced_at_the_next_start(page: Open) -> None:
    put_grade(page.store, 0.5, by=EMMY, label=PERSONS)
    for _ in range(2):
        page.announcers.append(next_one := Announcer(page.store, page.bus))
        next_one.announce(RUN)
        page.settle()
    assert page.bus.activity == [ProofLabeled.of(PERSONS)]


def test_a_grade_waits_for_a_broker_that_is_away(
    page: Open, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> None:
    monkeypatch.setattr(announcer, "RETRY_S", 0.05)
    page.bus.away = True
    assert page.browser().post(CASE, data=FORM).status_code == 303
    time.sleep(0.3)
    assert find_record(page.store, keys.announcement(RUN, PROOF, 0), ProofLabeled) is None
    page.bus.away = False
    assert wait_until(lambda: page.bus.activity == [ProofLabeled.of(PERSONS)], 60)
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_an_unexpected_error_or_a_damaged_label_stops_no_other_announcement(
    page: Open, quiet_log: None
) -> None:
    other = "p0-000"
    page.store.put_if_absent(keys.label(RUN, other), b"{}")
    put_grade(page.store, 0.5, by=EMMY, proof_id=other)
    put_grade(page.store, 0.5, by=EMMY, label=PERSONS)
    page.announcers.append(one := Announcer(page.store, page.bus))
    one.announce(3)  # type: ignore[arg-type]  # a bug
    one.announce(RUN)
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_a_check_of_a_label_changes_and_announces_nothing_and_is_counted(page: Open) -> None:
    for number, score in enumerate((1.0, 0.5, 0.5), 1):
        put_decided(page.store, f"p2-{number:03d}", score)
    browser = page.browser(offer=Offer(spot_checks=2))
    offered = [
        f"p2-{number:03d}"
        for number in (1, 2, 3)
        if f"/proofs/p2-{number:03d}" in browser.get(f"/runs/{RUN}").text
    ]
    assert len(offered) == 2
    answers = [browser.post(f"/runs/{RUN}/proofs/{name}", data={"score": "1"}) for name in offered]
    assert [answer.status_code for answer in answers] == [303, 303]
    labels = {found.proof_id: found for found in labels_of(page.store, RUN)}
    assert all(labels[name].by == "labeler" for name in offered)
    agreeing = sum(labels[name].score == 1.0 for name in offered)
    shown = browser.get(f"/runs/{RUN}").text
    assert f"Emmy Noether / labels</th><td>2</td><td>{agreeing}</td>" in shown
    put_record(
        page.store, keys.problem(RUN, "p2"), Problem(id="p2", question="Prove that $2n$ is even.")
    )
    scores = {row["by"]: row["score"] for row in scored_proofs(page.store, RUN)}
    assert scores == {
        EMMY: 1.0,
        "labeler": next(labels[n].score for n in labels if n not in (*offered, PROOF)),
    }
    assert page.settle() == []


def test_an_analysis_is_graded_blind_and_changes_no_label(page: Open) -> None:
    browser = page.browser(offer=Offer(analyses=1))
    before = browser.get(ANALYSIS).text
    assert "every defect it reports is real" in before and "Show judgements" in before
    assert browser.post(ANALYSIS, data={"score": "0.5"}).status_code == 303
    (grade,) = page.grades(critique=0)
    assert (grade.critique, grade.score, grade.label, grade.is_blind) == (0, 0.5, None, True)
    assert page.label() == undecided_label()
    browser.post(CASE, data=FORM)  # no longer blind: one critique was read
    assert [grade.is_blind for grade in page.grades()] == [False]
    assert browser.post(f"{CASE}/critique-9", data=FORM).status_code == 404
    assert page.settle() == [ProofLabeled.of(PERSONS)]


def test_analyses_that_report_an_issue_come_behind_the_proofs(page: Open) -> None:
    browser = page.browser(offer=Offer(analyses=5))
    where = browser.post(CASE, data=FORM).headers["location"]
    to = browser.get(where).headers["location"]
    assert to in {f"{CASE}/critique-{index}?saved={PROOF}" for index in (0, 1)}


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
        browser = page.browser(offer=Offer(spot_checks=spot_checks))
        for _ in range(3):
            browser.get(f"/runs/{RUN}")
    assert len(drawn) == 2 * 4 * 2  # two lots a label, in each of two processes


def test_a_label_that_is_decided_and_not_drawn_is_not_graded(page: Open) -> None:
    put_decided(page.store, "p2-001", 1.0)
    answer = page.browser().post(f"/runs/{RUN}/proofs/p2-001", data=FORM)
    assert (answer.status_code, page.grades("p2-001")) == (409, ())
    assert "has a label and is not in the sample to check. The grade was not saved." in answer.text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"score": ""}, "Choose a score: 1, 0.5 or 0."),
        ({"score": "2"}, "Choose a score: 1, 0.5 or 0."),
        ({"comment": "x" * 10_001}, "The comment has 10001 characters; the limit is 10000."),
        ({"mark": "why?"}, "A mark is unreadable"),
        ({"mark": "3 " + "x" * 1_001}, "At most 50 marks of 1000 characters"),
    ],
)
def test_a_form_that_is_wrong_says_so_and_keeps_what_was_written(
    page: Open, changes: dict[str, str], problem: str
) -> None:
    form = {**FORM, "comment": "Kept words", **changes}
    answer = page.browser().post(CASE, data=form)
    assert answer.status_code == 400
    assert problem in answer.text
    assert form["comment"] in answer.text
    assert page.grades() == ()
    script = page.browser().post(CASE, data=form, headers={"Accept": "application/json"})
    assert problem in script.json()["problem"]


def test_the_script_of_the_page_is_told_where_to_go(page: Open) -> None:
    answer = page.browser().post(CASE, data=FORM, headers={"Accept": "application/json"})
    assert answer.json() == {"next": f"/runs/{RUN}/next?after={PROOF}&saved={PROOF}"}


def test_a_person_enters_a_name_once(page: Open) -> None:
    browser = page.browser("")
    assert "Who grades?" in browser.get(CASE).text
    assert browser.post(CASE, data=FORM).status_code == 403
    entered = browser.post("/name", data={"name": "Emil  Artin ", "to": CASE})
    assert (entered.status_code, entered.headers["location"]) == (303, CASE)
    browser.post(CASE, data=FORM)
    assert page.scores() == [("Emil Artin", 0.5)]


@pytest.mark.parametrize("name", ["  ", "x" * 81, "a\u202eb", "labeler", "labels"])
def test_not_every_name_is_a_persons(page: Open, name: str) -> None:
    refused = page.browser("").post("/name", data={"name": name, "to": CASE})
    assert refused.status_code == 400
    assert 'role="alert"' in refused.text


@pytest.mark.parametrize("to", ["//evil.example/", "https://evil.example/", "/\\evil.example", ""])
def test_the_form_of_the_name_leads_nowhere_else(page: Open, to: str) -> None:
    entered = page.browser("").post("/name", data={"name": "Emil", "to": to})
    assert entered.headers["location"] == "/"


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
    assert bool(page.grades()) == (status == 303)


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
    browser = page.browser("", access=Access(token="a long word"))
    for where in ("/", f"/runs/{RUN}", CASE, "/style.css", "/none"):
        assert browser.get(where).status_code == 401
        assert browser.get(where, headers=basic("Emmy", "another word")).status_code == 401
        assert PROOF not in browser.get(where, headers=basic("Emmy", "")).text
    assert browser.post(CASE, data=FORM).status_code == 401
    login = {**basic("Emmy", "a long word"), "Host": "review.example.org"}
    assert "You grade as <b>Emmy</b>" in browser.get(CASE, headers=login).text


def test_each_person_has_a_password(page: Open) -> None:
    browser = page.browser("Emil", access=Access(passwords={"Emmy": "one", "Emil": "two"}))
    for name, password in (("Emmy", "two"), ("Emil", ""), ("", "one"), ("Sofya", "one")):
        assert browser.get(CASE, headers=basic(name, password)).status_code == 401
    browser.post(CASE, data=FORM, headers=basic("Emmy", "one"))
    assert page.scores() == [("Emmy", 0.5)]  # the name of the password, not of the cookie


@pytest.mark.parametrize(
    ("proxies", "name", "status"),
    [
        ("10.0.0.0/8", "Emmy", 303),
        ("10.0.0.0/8", "", 403),
        ("10.0.0.0/8", "labeler", 403),
        ("192.0.2.1/32", "Emmy", 403),
    ],
)
def test_a_name_in_a_header_is_trusted_from_the_proxy_only(
    page: Open, proxies: str, name: str, status: int
) -> None:
    access = Access(header="X-Forwarded-User", proxies=(ip_network(proxies),))
    browser = page.browser("", access=access)
    browser._transport.client = ("10.1.2.3", 50000)  # type: ignore[attr-defined]
    headers = {"X-Forwarded-User": name} if name else {}
    assert browser.post(CASE, data=FORM, headers=headers).status_code == status
    assert page.scores() == ([("Emmy", 0.5)] if status == 303 else [])


def test_only_own_scripts_run(page: Open) -> None:
    put_case(
        page.store,
        "p1-001",
        solution="</div><script>alert(1)</script> $\\text{<script>alert(1)</script>}$",
    )
    browser = page.browser()
    for where in (f"/runs/{RUN}", f"/runs/{RUN}/proofs/p1-001", "/none", "/style.css"):
        answer = browser.get(where)
        assert answer.headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self';"
        )
        assert "<script>" not in answer.text
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


def test_the_order_is_open_proofs_then_checks_then_skipped_proofs(page: Open) -> None:
    put_case(page.store, "p1-001")
    put_decided(page.store, "p2-000", 1.0)
    browser = page.browser(offer=Offer(spot_checks=2))
    seen, where = list[str](), f"/runs/{RUN}/next?after={PROOF}"
    for _ in range(2):  # the first is skipped, the others are graded
        where = browser.get(where).headers["location"].partition("?")[0]
        seen.append(where.rpartition("/")[2])
        where = browser.post(where, data=FORM).headers["location"]
    assert seen == ["p1-001", "p2-000"]
    assert browser.get(where).headers["location"] == f"{CASE}?saved=p2-000"


def test_people_begin_with_different_problems_and_stay_with_one(page: Open) -> None:
    for problem in range(2, 8):
        for number in range(2):
            put_undecided(page.store, f"p{problem}-{number:03d}", f"p{problem}")
    firsts = set()
    for person in ("A", "B", "C", "D", "E", "F"):
        browser = page.browser(person)
        first = browser.get(f"/runs/{RUN}/next").headers["location"].rpartition("/")[2]
        firsts.add(first)
        after = browser.get(f"/runs/{RUN}/next?after={first}").headers["location"]
        if not first.startswith("p1"):  # which has one proof
            assert after.rpartition("/")[2][:2] == first[:2]
    assert len(firsts) > 2


def test_proofs_are_assigned_to_known_people(page: Open) -> None:
    people = ("A", "B", "C", "D")
    names = [f"p2-{number:03d}" for number in range(12)]
    for name in names:
        put_undecided(page.store, name, "p2")
    offer = Offer(overlap=2, people=people)
    counts = dict.fromkeys(names, 0)
    for person in people:
        tasks = Cases(page.store, offer).tasks(RUN).queue(person).tasks
        own = [task for task in tasks if person in assigned(task.subject, 2, people)]
        assert list(tasks[: len(own)]) == own  # one's own come first
        for task in own:
            if task.subject.proof_id in counts:
                counts[task.subject.proof_id] += 1
    assert set(counts.values()) == {2}


def test_after_the_last_grade_comes_the_list(page: Open) -> None:
    browser = page.browser()
    after = browser.post(CASE, data=FORM).headers["location"]
    assert browser.get(after).headers["location"] == f"/runs/{RUN}?saved={PROOF}"
    shown = browser.get(f"/runs/{RUN}?saved={PROOF}").text
    assert "Nothing waits for you" in shown and "Step 2 is missing." in shown
    assert "Saved: " in shown


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


def test_a_damaged_object_is_named_and_hides_no_other_run(page: Open) -> None:
    create_run(page.store, runspec("other"), resume=False)
    page.store.put_if_absent(keys.label(RUN, "p9-000"), b"{}")
    browser = page.browser()
    for answer in (browser.get(f"/runs/{RUN}"), browser.post(CASE, data=FORM)):
        assert answer.status_code == 500
        assert f"An object in the store is damaged: {keys.label(RUN, 'p9-000')}" in answer.text
        assert "send the form again" not in answer.text
    runs = browser.get("/").text
    assert "/runs/other" in runs
    assert f"{RUN} is unreadable: {keys.label(RUN, 'p9-000')}" in runs


def test_single_calls_are_no_runs_to_grade(page: Open) -> None:
    create_run(page.store, runspec("prove-0123456789ab"), resume=False)
    create_run(page.store, runspec("prove-geometry"), resume=False)
    shown = page.browser().get("/").text
    assert "prove-geometry" in shown and "prove-0123456789ab" not in shown


def test_the_page_tells_which_grades_training_used(page: Open) -> None:
    put_record(
        page.store,
        keys.step(RUN, "verifier", 3),
        TrainingStep(
            run_id=RUN,
            role="verifier",
            step=3,
            version="v",
            sampled_by=(),
            figures={},
            reward_parts={},
            grades={PROOF: 0},
        ),
    )
    browser = page.browser()
    browser.post(CASE, data=FORM)
    words = "Training: step 3 of the verifier used the grades up to number 1."
    assert words in browser.get(CASE).text


def test_people_grade_no_comparisons_of_a_knock_out(store: Store) -> None:
    compared = Problem(id="p1", question="Q", rival="Another proof.")
    put_record(store, keys.problem(RUN, "p1"), compared)
    put_case(store)
    found = Cases(store, Offer(spot_checks=1, analyses=1)).tasks(RUN)
    assert found.tasks == ()
    assert not found.may_grade(Subject(PROOF))


def test_the_pages_work_under_a_prefix(page: Open) -> None:
    page.announcers.append(own := Announcer(page.store, page.bus))
    pages = grading_app(page.store, Cases(page.store, Offer()), own.announce)
    browser = TestClient(
        Starlette(routes=[Mount("/grade", pages)]),
        base_url="http://localhost",
        cookies={"grader": "Emil"},
        follow_redirects=False,
    )
    shown = browser.get(f"/grade{CASE}").text
    assert f'action="/grade{CASE}"' in shown
    assert re.findall(r'(?:href|src|action)="/(?!grade/|")[^"]*"', shown) == []
    assert browser.get("/grade/static/grading.js").status_code == 200
    location = browser.post(f"/grade{CASE}", data=FORM).headers["location"]
    assert browser.get(location).headers["location"] == f"/grade/runs/{RUN}?saved={PROOF}"


def put_decided(store: Store, proof_id: str, score: float) -> None:
    put_record(store, keys.proof(RUN, proof_id), proof(id=proof_id, problem_id="p2", group="p2"))
    put_record(
        store,
        keys.label(RUN, proof_id),
        label(score, proof_id=proof_id, problem_id="p2", group="p2"),
    )


def put_undecided(store: Store, proof_id: str, problem_id: str) -> None:
    fields = {"proof_id": proof_id, "problem_id": problem_id, "group": problem_id}
    put_record(store, keys.label(RUN, proof_id), undecided_label(**fields))


def away(key: str, data: bytes, *, durable: bool = False) -> bool:
    raise StoreError("the store is away")


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}
