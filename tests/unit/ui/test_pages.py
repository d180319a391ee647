"""The pages of a store: what they show, and that no text of a model becomes markup."""

from __future__ import annotations

import re
import threading
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum.status import add_run, freeze
from proofloop.runs.create import create_run
from proofloop.runs.grading.openings import EVERYTHING, openings, record_openings
from proofloop.schema import keys
from proofloop.schema.records import MetaCritique, Problem, Proof, RawAnswer, Score
from proofloop.store import LocalStore, get_record, put_record
from proofloop.ui.access import Access
from proofloop.ui.app import make_app
from proofloop.ui.fresh_index import Filled
from proofloop.ui.site import Site
from tests.builders import (
    PROOF,
    PROVENANCE,
    RUN,
    critique,
    label,
    meta_evaluation,
    proof,
    put_case,
    runspec,
    valid,
)
from tests.unit.ui.conftest import Browse

EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)> "quoted words of evil"'


def text(page: str) -> str:
    """The words of a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_first_page_lists_runs_with_their_progress(store: LocalStore, browser: Browse) -> None:
    create_run(store, runspec("other"), resume=False)
    create_run(store, runspec("prove-0123456789ab"), resume=False)
    page = browser().get("/").text
    assert f'href="/runs/{RUN}"' in page and 'href="/runs/other"' in page
    assert "2 runs" in text(page) and "Single prove and judge calls: 1" in text(page)
    assert "1 of 4" in text(page)


def test_a_run_that_this_version_cannot_read_is_named_beside_the_others(
    store: LocalStore, browser: Browse
) -> None:
    store.put_if_absent(keys.run_spec("other"), b"[]")
    store.put_if_absent(keys.curriculum("third"), b"[]")
    answer = browser().get("/")
    assert answer.status_code == 200 and f"/runs/{RUN}" in answer.text
    assert "other is unreadable: specs/other.json" in answer.text
    assert "third is unreadable: curricula/third" in answer.text


def test_an_empty_store_tells_how_to_begin(store: LocalStore, browser: Browse) -> None:
    store.delete_prefix(keys.SPECS)
    assert "proofloop run" in text(browser().get("/").text)


def test_a_run_has_a_row_for_each_problem(store: LocalStore, browser: Browse) -> None:
    put_record(store, keys.problem(RUN, "p2"), Problem(id="p2", question="Prove $1 < 2$."))
    page = browser().get(f"/runs/{RUN}").text
    assert (
        f'href="/runs/{RUN}/problems/p1"' in page and f'href="/runs/{RUN}/proofs/{PROOF}"' in page
    )
    assert '<code class="formula">$1 &lt; 2$</code>' in page
    found = browser().get(f"/runs/{RUN}", params={"search": "1 < 2", "sort": "-proofs"}).text
    assert "/problems/p2" in found and "/problems/p1" not in found
    assert 'aria-sort="descending"' in found


def test_the_table_is_paged_by_the_server(store: LocalStore, browser: Browse) -> None:
    for number in range(150):
        name = f"q{number}"
        put_record(store, keys.problem(RUN, name), Problem(id=name, question="Prove it."))
    first = browser().get(f"/runs/{RUN}", params={"search": "it."}).text
    assert first.count("data-item") == 50
    (after,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = browser().get(f"/runs/{RUN}{after.replace('&amp;', '&')}").text
    assert second.count("data-item") == 50 and "51 to 100 of 150" in text(second)


def test_an_unknown_column_is_refused_and_what_is_not_there_is_named(browser: Browse) -> None:
    here = browser()
    refused = here.get(f"/runs/{RUN}?sort=length")
    assert refused.status_code == 400 and "one of problem" in refused.text
    for page, words in {
        "/runs/none": "No run named none",
        f"/runs/{RUN}/problems/p9": "no problem p9",
        f"/runs/{RUN}/proofs/p1-777": "no proof p1-777",
        f"/runs/{RUN}/proofs/{PROOF}/critique-77": "no answer critique-77",
        f"/runs/{RUN}/proofs/{PROOF}/nothing": "no answer nothing",
        "/curricula/none": "No curriculum named none",
    }.items():
        answer = here.get(page)
        assert (answer.status_code, words in answer.text) == (404, True), page


def test_a_problem_shows_its_proofs_and_the_tree_of_refinements(
    store: LocalStore, browser: Browse
) -> None:
    for name, parent in (("p1-001", PROOF), ("p1-002", "p1-001")):
        put_record(store, keys.proof(RUN, name), proof(id=name, parents=(parent,)))
        put_record(store, keys.label(RUN, name), label(proof_id=name, solved=name == "p1-002"))
    put_record(store, keys.proof(RUN, "p1-003"), proof(id="p1-003"))
    page = browser().get(f"/runs/{RUN}/problems/p1").text
    tree = page[page.index("tree-heading") :]
    places = [tree.index(f">{name}</a>") for name in (PROOF, "p1-001", "p1-002")]
    assert places == sorted(places) and tree.count('<ul class="tree">') == 3
    assert 'class="best">p1-002' in tree
    proofs = page[: page.index("tree-heading")]
    assert proofs.index(">p1-002</a></th>") < proofs.index(">p1-001</a></th>")  # the best is first


def test_proofs_without_a_label_are_named(browser: Browse, store: LocalStore) -> None:
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    page = browser().get(f"/runs/{RUN}/problems/p1").text
    assert f'No label yet: <a href="/runs/{RUN}/proofs/p1-001">p1-001</a>' in page


def test_a_critique_stands_beside_the_paragraph_that_it_quotes(
    store: LocalStore, browser: Browse
) -> None:
    solution = "Let $n$ be even.\n\nThen the claim is trivially true."
    put_case(store, "p1-005", solution, scores=())
    quoting = critique(0, valid(0.0), 'It says "the claim is trivially true": why?')
    at = keys.critique(RUN, "p1-005", 0)
    put_record(store, at, quoting.model_copy(update={"proof_id": "p1-005"}))
    page = browser().get(f"/runs/{RUN}/proofs/p1-005").text
    first, second = page.split('id="passage-1"')
    assert "beside" not in first
    assert '<a class="beside" href="#critique-0">' in second
    assert 'Quotes <a href="#passage-1">paragraph 2</a>' in page


def test_a_proof_shows_its_label_judgements_and_provenance(
    store: LocalStore, browser: Browse
) -> None:
    page = text(browser().get(f"/runs/{RUN}/proofs/{PROOF}").text)
    for words in ("undecided", "critique 0 confirmed by the meta-verifier", "m-1", "seed 7"):
        assert words in page


def test_critiques_beyond_the_first_are_loaded_when_they_are_opened(
    store: LocalStore, browser: Browse
) -> None:
    put_case(store, "p1-006", scores=[0.0] * 8)
    page = browser().get(f"/runs/{RUN}/proofs/p1-006").text
    parts = re.findall(r'data-part="([^"]+)"', page)
    assert len(parts) == 3
    part = browser().get(parts[0])
    assert part.status_code == 200 and "<html" not in part.text and "Every step" in part.text


def test_an_answer_shows_its_raw_text_reasoning_and_judgements(
    store: LocalStore, browser: Browse
) -> None:
    raw = RawAnswer(text="As it was written.", reasoning="Let me think.")
    answer = critique(7, valid(0.0), "The gap.").model_copy(update={"raw": raw})
    put_record(store, keys.critique(RUN, PROOF, 7), answer)
    judged = MetaCritique(
        analysis=meta_evaluation(), verdict=valid(1.0), provenance=PROVENANCE, raw=RawAnswer()
    )
    put_record(store, keys.meta_critique(RUN, PROOF, 7, 0), judged)
    page = browser().get(f"/runs/{RUN}/proofs/{PROOF}/critique-7").text
    for words in ("As it was written.", "Let me think.", "The gap.", "judgement 0"):
        assert words in text(page)
    assert f"/runs/{RUN}/proofs/{PROOF}/meta-7-0" in page
    assert browser().get(f"/runs/{RUN}/proofs/{PROOF}/meta-7-0").status_code == 200
    assert browser().get(f"/runs/{RUN}/proofs/{PROOF}/proof").status_code == 200


def test_no_text_of_a_model_becomes_markup(store: LocalStore, browser: Browse) -> None:
    written = get_record(store, keys.proof(RUN, PROOF), Proof)
    put_record(store, keys.problem(RUN, "px"), Problem(id="px", question=EVIL, answer=EVIL))
    evil = {"id": "px-000", "problem_id": "px", "solution": EVIL, "self_analysis": EVIL}
    put_record(store, keys.proof(RUN, "px-000"), written.model_copy(update=evil))
    put_record(store, keys.label(RUN, "px-000"), label(proof_id="px-000", problem_id="px"))
    raw = RawAnswer(text=EVIL, reasoning=EVIL)
    answer = critique(0, valid(0.0), EVIL).model_copy(update={"proof_id": "px-000", "raw": raw})
    put_record(store, keys.critique(RUN, "px-000", 0), answer)
    pages = (f"/runs/{RUN}", f"/runs/{RUN}/problems/px", f"/runs/{RUN}/proofs/px-000")
    for page in (*pages, f"{pages[-1]}/critique-0", f"/compare?a={RUN}&b={RUN}"):
        html = browser().get(page).text
        assert "alert(1)" in html, page
        assert "<script>" not in html and "<img" not in html, page


def test_two_runs_and_versions_stand_side_by_side(store: LocalStore, browser: Browse) -> None:
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    put_record(store, keys.label(RUN, "p1-001"), label(proof_id="p1-001"))
    page = text(browser().get(f"/compare?a={RUN}&b={RUN}@m-1").text)
    assert f"{RUN} and {RUN}@m-1" in page and "proofs accepted" in page
    refused = browser().get(f"/compare?a={RUN}&b={RUN}@m-9").text
    assert "versions with labeled proofs: m-1" in refused
    assert browser().get("/compare?a=none&b=none").status_code == 404


@pytest.mark.parametrize("where", ["/runs/{}", "/runs/{}/problems/p1", "/compare?a={}&b=other"])
@pytest.mark.parametrize(
    ("filled", "words"),
    [
        (Filled(3, 10), "Reading the labels of r1: 3 of 10."),
        (Filled(3, 10, "no disk"), "The labels of r1 are not up to date here: no disk"),
    ],
)
def test_a_page_tells_that_it_does_not_have_all_labels_yet(
    store: LocalStore,
    browser: Browse,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    filled: Filled,
    words: str,
) -> None:
    create_run(store, runspec("other"), resume=False)
    page = browser()
    assert "labels of r1" not in page.get(where.format(RUN)).text
    monkeypatch.setattr(site.index, "look", lambda run: filled)
    assert words in page.get(where.format(RUN)).text


def test_a_damaged_object_is_named(store: LocalStore, browser: Browse) -> None:
    store.path(keys.label(RUN, PROOF)).write_bytes(b"{}")
    answer = browser().get(f"/runs/{RUN}/proofs/{PROOF}")
    assert answer.status_code == 500
    assert f"An object in the store is damaged: {keys.label(RUN, PROOF)}" in answer.text


def test_a_difference_without_an_interval_says_why(store: LocalStore, browser: Browse) -> None:
    for problem in ("q1", "q2"):
        name = f"{problem}-000"
        put_record(store, keys.problem(RUN, problem), Problem(id=problem, question=problem))
        put_record(store, keys.proof(RUN, name), proof(id=name, problem_id=problem))
        put_record(store, keys.label(RUN, name), label(proof_id=name, problem_id=problem))
    page = text(browser().get(f"/compare?a={RUN}&b={RUN}").text)
    assert "no interval: the same difference on all problems" in page


def test_a_label_that_comes_later_is_on_the_page(store: LocalStore, browser: Browse) -> None:
    here = browser()
    assert "accepted 1" not in text(here.get(f"/runs/{RUN}").text)
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    put_record(store, keys.label(RUN, "p1-001"), label(proof_id="p1-001"))
    assert "accepted 1" in text(here.get(f"/runs/{RUN}").text)


def test_a_curriculum_has_its_stages_and_its_runs(store: LocalStore, browser: Browse) -> None:
    freeze(store, CurriculumSpec(name="course"))
    create_run(store, runspec("course-1-verifier"), resume=False)
    add_run(store, "course", "course-1-verifier")
    first = browser().get("/").text
    rows, curricula = first.split('id="curricula-heading"')
    assert "course-1-verifier" not in rows and 'href="/runs/course-1-verifier"' in curricula
    page = browser().get("/curricula/course")
    assert "1-verifier" in text(page.text) and "stages are done" in text(page.text)
    assert "style-src-attr" in page.headers["content-security-policy"]


def test_one_run_alone_is_shown_if_the_command_names_it(
    store: LocalStore, site: Site, browser: Browse
) -> None:
    create_run(store, runspec("other"), resume=False)
    freeze(store, CurriculumSpec(name="course"))
    site.only = RUN
    here = browser()
    first = here.get("/").text
    assert f"/runs/{RUN}" in first and "other" not in text(first) and "course" not in text(first)
    for page in ("/runs/other", f"/compare?a={RUN}&b=other", "/curricula/course"):
        assert here.get(page).status_code == 404, page
    assert here.get(f"/runs/{RUN}").status_code == 200


def test_grading_pages_are_mounted_behind_the_same_login(
    store: LocalStore, site: Site, stopping: threading.Event
) -> None:
    def pages(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.person} at {request.scope['root_path']}")

    site.has_grading = True
    grading = Starlette(routes=[Route("/runs/{run}", pages)])
    app = make_app(site, stopping, Access(passwords={"Emmy": "a word"}), grading)
    here = TestClient(app, base_url="http://localhost")
    assert here.get(f"/grade/runs/{RUN}").status_code == 401
    emmy = ("Emmy", "a word")
    assert here.get(f"/grade/runs/{RUN}", auth=emmy).text == "Emmy at /grade"
    proof = here.get(f"/runs/{RUN}/proofs/{PROOF}", auth=emmy).text
    assert f'href="/grade/runs/{RUN}/proofs/{PROOF}?read=1"' in proof


@pytest.mark.parametrize("where", ["", "/critique-0"])
def test_what_a_grader_reads_is_recorded_where_proofs_are_graded(
    store: LocalStore, browser: Browse, site: Site, where: str
) -> None:
    page = browser()
    page.cookies.set("grader", "Emmy%20Noether")
    seen = partial(openings, store, RUN, PROOF, by="Emmy Noether")
    page.get(f"/runs/{RUN}/proofs/{PROOF}{where}")
    assert seen() == frozenset()
    site.has_grading = True
    page.get(f"/runs/{RUN}/proofs/{PROOF}{where}")
    assert seen() == {"everything"}


@pytest.mark.parametrize(
    ("parents", "recorded"), [((), {PROOF, "p1-001"}), ((PROOF,), {PROOF, "p1-001", "p1-002"})]
)
def test_a_grader_who_reads_labels_on_the_page_of_a_problem_is_not_blind(
    store: LocalStore,
    browser: Browse,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    parents: tuple[str, ...],
    recorded: set[str],
) -> None:
    monkeypatch.setattr("proofloop.ui.problem_page.ROWS", 1)
    for name in ("p1-001", "p1-002"):  # p1-001 is the best proof; a tree shows both
        put_record(store, keys.proof(RUN, name), proof(id=name, parents=parents))
        put_record(store, keys.label(RUN, name), label(proof_id=name))
    site.has_grading = True
    page = browser()
    page.cookies.set("grader", "Emmy%20Noether")
    assert page.get(f"/runs/{RUN}/problems/p1?sort=id").status_code == 200
    names = (PROOF, "p1-001", "p1-002")
    seen = {name: openings(store, RUN, name, by="Emmy Noether") for name in names}
    assert seen == {name: {"everything"} if name in recorded else set() for name in names}


def test_a_grader_who_reads_the_best_proofs_on_the_page_of_a_run_is_not_blind(
    store: LocalStore, browser: Browse, site: Site
) -> None:
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    put_record(store, keys.label(RUN, "p1-001"), label(proof_id="p1-001"))
    site.has_grading = True
    page = browser()
    page.cookies.set("grader", "Emmy%20Noether")
    assert page.get(f"/runs/{RUN}").status_code == 200
    seen = {name: openings(store, RUN, name, by="Emmy Noether") for name in (PROOF, "p1-001")}
    assert seen == {PROOF: frozenset(), "p1-001": {"everything"}}


@pytest.mark.parametrize(
    ("where", "scores", "told"),
    [
        (f"/runs/{RUN}", (1.0, 1.0, 1.0), {1, 2, 3}),
        (f"/runs/{RUN}", (0.0, 1.0, 0.5), {1, 2, 3}),  # the best one, and the rejected others
        (f"/runs/{RUN}", (1.0, 1.0, 0.0), {1}),  # the best one
        (f"/compare?a={RUN}&b=other", (0.0, 0.5, 0.0), {1, 2, 3}),
        (f"/compare?a=other&b={RUN}", (1.0,), {1}),
        (f"/compare?a={RUN}&b=other", (0.0, 1.0, 1.0), set()),
        (f"/compare?a={RUN}&b={RUN}@v-2", (0.0, 1.0, 1.0), {2}),  # of the version, the only one
        (f"/compare?a={RUN}&b=other&page=2", (1.0,), set()),
    ],
)
def test_a_grader_who_can_tell_labels_from_counts_is_not_blind(
    store: LocalStore,
    browser: Browse,
    site: Site,
    where: str,
    scores: tuple[Score, ...],
    told: set[int],
) -> None:
    create_run(store, runspec("other"), resume=False)
    for number, score in enumerate(scores, 1):
        name = f"p1-{number:03d}"
        made = PROVENANCE.model_copy(update={"model_version": f"v-{number}"})
        put_record(store, keys.proof(RUN, name), proof(id=name, provenance=made))
        outcome = "accepted" if score == 1 else "rejected"
        put_record(store, keys.label(RUN, name), label(score, proof_id=name, outcome=outcome))
    site.has_grading = True
    page = browser()
    page.cookies.set("grader", "Emmy%20Noether")
    for _ in range(2):
        assert page.get(where).status_code == 200
    assert not openings(store, RUN, PROOF, by="Emmy Noether")  # it is undecided
    seen = {
        number
        for number in range(1, 4)
        if openings(store, RUN, f"p1-{number:03d}", by="Emmy Noether")
    }
    assert seen == told


def test_many_openings_are_recorded_once(store: LocalStore) -> None:
    names = [f"p1-{number:03d}" for number in range(20)]
    for some in (names[:10], names):
        record_openings(store, RUN, some, EVERYTHING, by="Emmy")
    assert all(openings(store, RUN, name, by="Emmy") == {EVERYTHING} for name in names)


def test_without_grading_pages_no_link_leads_there(browser: Browse) -> None:
    for page in ("/", f"/runs/{RUN}", f"/runs/{RUN}/proofs/{PROOF}"):
        assert "/grade" not in browser().get(page).text
