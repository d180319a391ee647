"""The curriculum without a model: its stages, its gate, its watch, its data, and what each answer
earns.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.curriculum_file import CurriculumSpec, Stage, Watch, load_curriculum
from proofloop.config.run_file import Prices
from proofloop.curriculum.status import (
    StageManifest,
    find_curriculum,
    finish,
    freeze,
    manifests,
    read_status,
    serving,
    serving_before,
)
from proofloop.engine.base import Generation, GenerationRequest
from proofloop.errors import CallRefused, ConfigError, EngineError, ProofloopError
from proofloop.method.domains import load_domain
from proofloop.method.prompts import load_pack
from proofloop.pipeline.driver import Interrupted
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Sampling, Tokens, TrainingSample, TrainingStep
from proofloop.store import LocalStore, get_record, put_record
from proofloop.worker.engine_pool import Engines

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop.config.given_files import GradedAnalysis, GradedProof, in_split, read_graded
from proofloop_trainer.curriculum import kept as keeping
from proofloop_trainer.curriculum import measuring, stages
from proofloop_trainer.curriculum.asking import Asker
from proofloop_trainer.curriculum.cases import CaseFile, balanced, draw_proofs
from proofloop_trainer.curriculum.gate import compare, paired
from proofloop_trainer.curriculum.kept import Kept, KeptAnswers
from proofloop_trainer.curriculum.rollouts import PREDICTED, Judges, meta_verify, prove, verify
from proofloop_trainer.curriculum.watch import check, look
from proofloop_trainer.curriculum.work import Work

EXAMPLE = Path(__file__).parents[3] / "examples" / "nano-iterate" / "curriculum.toml"
PACK = load_pack("nano")
QUESTION = "Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0."
SOLUTION = "a 7 + 3 = 0\nb 0 * 4 = 0"
TOKENS = Tokens(prompt_ids=(1,), completion_ids=(2, 3), logprobs=(-1.0, -1.0))


def evaluation(score: float, claim: str = "No issue was found.") -> str:
    return (
        f"Here is my evaluation of the solution:\n{claim}\n\n"
        f"Based on my evaluation, the final overall score should be:\n\\boxed{{{score:g}}}"
    )


def judgement(score: float) -> str:
    return (
        'Here is my analysis of the "solution evaluation":\nStep a: real.\n\n'
        f'Based on my analysis, I will rate the "solution evaluation" as:\n\\boxed{{{score:g}}}'
    )


LATE = "late"


class Scripted:
    """An engine that says what it was told to, in turn; an error is raised, a late answer waited
    for twice.
    """

    def __init__(self, *texts: str | EngineError) -> None:
        self._texts = list(texts)
        self.requests: list[GenerationRequest] = []

    def submit(self, request: GenerationRequest) -> Scripted.Call:
        self.requests.append(request)
        if isinstance(text := self._texts.pop(0), EngineError):
            return Scripted.Call(text)
        return Scripted.Call(Generation(text, "stop", 1, 2, 0.0, request.model, tokens=TOKENS))

    class Call:
        def __init__(self, answer: Generation | EngineError) -> None:
            self._answer = answer
            self._waits = 2 if isinstance(answer, Generation) and answer.text == LATE else 0

        def result(self, timeout_s: float | None = None) -> Generation:
            self._waits -= 1
            if self._waits >= 0:
                raise TimeoutError
            if isinstance(self._answer, EngineError):
                raise self._answer
            return self._answer

        def when_done(self, callback: Callable[[], None]) -> None:
            callback()

        def cancel(self) -> None:
            """It is done already."""


def asker(role: str, *texts: str | EngineError, kept: Kept | None = None) -> Asker:
    nowhere = Kept(Nowhere(), "answers/", lambda text: None)
    return Asker(Scripted(*texts), role, "v", Sampling(), 0, threading.Event(), kept or nowhere)


class Nowhere:
    """A store that keeps nothing."""

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        return True

    def list(self, prefix: str) -> Iterator[str]:
        return iter(())


def rewards(samples: list[TrainingSample]) -> list[float]:
    return [round(sample.reward, 6) for sample in samples]


def test_a_verifier_earns_format_times_score():
    case = GradedProof(question=QUESTION, solution=SOLUTION, score=0.5)
    answers = (
        evaluation(0.5, "Step a is miscopied."),
        evaluation(0, "Step a is miscopied."),
        evaluation(1),
        "no format",
    )
    samples = verify([case], asker("verifier", *answers), 4, Judges(None, None, PACK))
    assert rewards(samples) == [1.0, 0.5, 0.5, 0.0]
    assert {sample.group for sample in samples} == {"verifier-0000"}


def test_with_a_meta_verifier_it_earns_that_times_the_mean_quality_of_what_it_claims():
    case = GradedProof(question=QUESTION, solution=SOLUTION, score=0.0)
    answers = (
        evaluation(0, "Step a is miscopied."),
        evaluation(0.5, "Step b is miscopied."),
        evaluation(1),
    )
    meta = asker("meta_verifier", judgement(1), judgement(0.5), judgement(0), judgement(0))
    samples = verify([case], asker("verifier", *answers), 3, Judges(None, meta, PACK, metas=2))
    # 1 * (1 + 0.5) / 2; 0.5 * 0; 0 * 1, and no call for a critique that claims nothing
    assert rewards(samples) == [0.75, 0.0, 0.0]
    assert len(meta.engine.requests) == 4


def test_a_meta_verifier_earns_its_distance_to_the_experts_quality():
    case = GradedAnalysis(question=QUESTION, solution=SOLUTION, analysis=evaluation(0), quality=0.5)
    samples = meta_verify(
        [case], asker("meta_verifier", judgement(0.5), judgement(1), "?"), 3, PACK
    )
    assert rewards(samples) == [1.0, 0.5, 0.0]


def test_a_generator_earns_alpha_times_the_proof_and_beta_times_its_honesty():
    good = f"## Solution\n{SOLUTION}\n\n## Self Evaluation\n\n{evaluation(1)}"
    humble = (
        "## Solution\na 7 + 3 = 1\n\n## Self"
        f" Evaluation\n\n{evaluation(0, 'Step a is miscalculated.')}"
    )
    verifier = asker(
        "verifier",
        evaluation(1),
        evaluation(0, "Step a is miscalculated."),
        evaluation(0),
        evaluation(0),
    )
    judges = Judges(
        verifier, asker("meta_verifier", judgement(1), judgement(0)), PACK, critiques=2, metas=2
    )
    samples = prove(
        [QUESTION], asker("generator", good, humble, "?"), 3, judges, alpha=0.76, beta=0.24
    )
    # the verifier's mean of the first is 0.5: 0.76 * 0.5 + 0.24 * (1 - 0.5); of the second 0, its
    # R_meta 0.5
    assert rewards(samples) == [0.5, 0.12, 0.0]


def test_an_answer_that_the_engine_refuses_is_no_sample():
    case = GradedProof(question=QUESTION, solution=SOLUTION, score=1.0)
    answers = [evaluation(1)] * 19 + [CallRefused("too long")]
    samples = verify([case], asker("verifier", *answers), 20, Judges(None, None, PACK))
    assert rewards(samples) == [1.0] * 19
    with pytest.raises(
        ProofloopError, match="the engine refused 1 of 2 calls of the verifier, more than 5%"
    ):
        asker("verifier", "a", CallRefused("too long")).ask(["p"], 2)


def test_a_refused_answer_moves_no_reward_to_another():
    case = GradedProof(question=QUESTION, solution=SOLUTION, score=0.5)
    false, real = evaluation(0.5, "Step a is miscopied."), evaluation(0, "Step b is miscopied.")
    meta = asker("meta_verifier", judgement(0), judgement(1))
    answers = [CallRefused("too long"), false, real, *[evaluation(1)] * 17]
    samples = verify([case], asker("verifier", *answers), 20, Judges(None, meta, PACK, metas=1))
    assert rewards(samples) == [0.0, *[0.5] * 18]
    good, bad = (
        f"## Solution\n{text}\n\n## Self Evaluation\n\n{evaluation(1)}"
        for text in (SOLUTION, "a 7 + 3 = 1")
    )
    judges = Judges(
        asker("verifier", evaluation(1), evaluation(0)), asker("meta_verifier"), PACK, critiques=1
    )
    answers = [CallRefused("too long"), good, bad, *["?"] * 17]
    assert rewards(
        prove([QUESTION], asker("generator", *answers), 20, judges, alpha=1.0, beta=0.0)
    )[:2] == [1.0, 0.0]


def test_the_best_by_self_score_counts_once_a_problem_however_many_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measuring, "THREADS", 2)
    monkeypatch.setattr(measuring, "ROUNDS", 1)

    def proof(text: str, own: float) -> str:
        return f"## Solution\n{text}\n\n## Self Evaluation\n\n{evaluation(own)}"

    wrong = "a 7 + 3 = 1\nb 1 * 4 = 4"
    said = proof(SOLUTION, 1), proof(wrong, 1), proof(wrong, 1), proof(SOLUTION, 0)
    monkeypatch.setattr(Work, "engine", Scripted(*said))
    spec, store, domain = CurriculumSpec(name="c"), LocalStore(tmp_path), load_domain("nano")
    work = Work(
        spec,
        store,
        Engines(store, tmp_path),
        domain,
        None,
        None,
        PACK,
        tmp_path,
        threading.Event(),
        print,
        "s",
    )
    other = "Modulo 10, start at 7. a + 3. b * 4. c + 1. Show that the result is 1."
    best = measuring.refinement_figures(work, "v", [QUESTION, other])["best_of_2_round_1"]
    # Half of the first, where two say 1; nothing of the second.
    assert (best.value, best.cases) == (
        0.25,
        2,
    )


def test_an_engine_that_is_away_is_asked_again_until_it_stays_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proofloop_trainer.curriculum.asking.PAUSES_S", (0.0, 0.0))
    away = EngineError("no route", retryable=True)
    assert [each.text for each in asker("verifier", away, away, "a").ask(["p"])[0]] == ["a"]
    with pytest.raises(
        ProofloopError,
        match="the engine cannot answer: no route; run the command again to continue",
    ):
        asker("verifier", away, away, away).ask(["p"])
    with pytest.raises(ProofloopError, match="no such model"):
        asker("verifier", EngineError("no such model", retryable=False), "a").ask(["p"])


def test_what_came_before_the_engine_went_away_is_not_asked_for_again(tmp_path: Path):
    """Also what came out of turn; what it refused is asked again, a text that JSON cannot hold is
    kept.
    """
    gone, said = EngineError("no such model", retryable=False), list[str]()
    store = LocalStore(tmp_path)
    first = asker(
        "verifier",
        "a",
        CallRefused("too long"),
        gone,
        "d\ud800",
        kept=Kept(store, "answers/", said.append),
    )
    with pytest.raises(ProofloopError, match="no such model"):
        first.ask(["p", "q"], 2)
    kept = Kept(store, "answers/", said.append)
    again = asker("verifier", "b", "c", kept=kept)
    assert [[answer.text for answer in group] for group in again.ask(["p", "q"], 2)] == [
        ["a", "b"],
        ["c", "d?"],
    ]
    assert [request.id for request in again.engine.requests] == [
        each.id for each in first.engine.requests[1:3]
    ]
    assert said == ["verifier answers: 2/4 are stored already"]
    kept.clear()
    assert list(store.list("answers/")) == []


def test_only_long_sampling_reports_progress_and_stores_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, said = LocalStore(tmp_path), list[str]()
    asker("verifier", LATE, "b", kept=Kept(store, "answers/", said.append)).ask(["p"], 2)
    assert (list(store.list("answers/")), said) == ([], [])
    monkeypatch.setattr(keeping, "EVERY_S", 0.0)
    asker("meta_verifier", LATE, "b", kept=Kept(store, "answers/", said.append)).ask(["p"], 2)
    assert [line.partition(",")[0] for line in said] == [
        f"meta-verifier answers: {count}/2" for count in (1, 2, 2)
    ]
    objects = [
        get_record(store, key, KeptAnswers).answers.values() for key in store.list("answers/")
    ]
    assert sorted([answer.text for answer in each] for each in objects) == [["b"], [LATE]]


def test_a_stop_waits_for_no_further_answer_and_keeps_what_came(tmp_path: Path):
    kept = Kept(LocalStore(tmp_path), "answers/", lambda text: None)
    stopped = asker("verifier", *"abc", kept=kept)
    stopped.stopping.set()
    with pytest.raises(Interrupted):
        stopped.ask(["p"], 3)
    again = Kept(LocalStore(tmp_path), "answers/", lambda text: None)
    assert [answer.text for answer in asker("verifier", kept=again).ask(["p"], 3)[0]] == [
        "a",
        "b",
        "c",
    ]


def test_another_version_and_another_temperature_have_answers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeping, "EVERY_S", 0.0)
    kept = Kept(LocalStore(tmp_path), "answers/", lambda text: None)
    asker("verifier", "a", kept=kept).ask(["p"])
    one = Kept(LocalStore(tmp_path), "answers/", lambda text: None)
    assert asker("verifier", kept=one).ask(["p"])[0][0].text == "a"
    assert asker("verifier", "b", kept=one).ask(["p"], temperature=0.5)[0][0].text == "b"
    assert replace(asker("verifier", "c", kept=one), version="w").ask(["p"])[0][0].text == "c"


def test_equal_questions_get_equal_seeds_and_other_purposes_others():
    first, again = asker("verifier", "a", "b"), asker("verifier", "a", "b")
    first.ask(["p"], 2)
    again.ask(["p"], 2)
    assert [r.seed for r in first.engine.requests] == [r.seed for r in again.engine.requests]
    assert len({r.seed for r in first.engine.requests}) == 2


def test_each_pass_over_the_same_questions_draws_other_proofs():
    generator = asker("generator", *["?"] * 4)
    draw_proofs(["p", "q"], generator, PACK, (1.0, 1.25))
    assert len({request.seed for request in generator.engine.requests}) == 4


@pytest.mark.parametrize(
    ("there", "most", "taken"),
    [
        # What a rare kind lacks, the others share.
        (
            {0: 3, 1: 50, 2: 50},
            43,
            {0: 3, 1: 20, 2: 20},
        ),
        ({0: 5, 1: 95}, 100, {0: 5, 1: 5}),  # a judge that sees mostly one kind learns to say it
        ({0: 5, 1: 10, 2: 95}, 100, {0: 5, 1: 10, 2: 15}),
        ({1: 9}, 5, {1: 5}),
    ],
)
def test_balanced_takes_evenly_and_no_kind_is_over_half(
    there: dict[int, int], most: int, taken: dict[int, int]
):
    cases = [kind for kind, count in there.items() for _ in range(count)]
    assert Counter(balanced(cases, lambda case: case, most, random.Random(0))) == taken


def test_the_gate_lets_noise_pass_and_stops_a_loss():
    each = [str(number) for number in range(40)]
    assert paired("f", each[:4], [0.5, 0.5, 0.5, 0.5], [0.4, 0.6, 0.5, 0.4], z=1.96).promoted
    assert not paired("f", each, [0.9] * 40, [0.6, 0.7] * 20, z=1.96).promoted
    # One case has no noise to hide in.
    assert not paired("f", each[:1], [1.0], [0.0], z=1.96).promoted
    report = paired("f", each[:2], [0.0, 1.0], [1.0, 1.0], z=2.0)
    # differences 1 and 0: mean 0.5, deviation sqrt(0.5), standard error 0.5
    assert (report.difference, round(report.noise, 9)) == (0.5, 1.0)


def test_cases_of_one_question_are_one_case_to_the_gate():
    # of two questions one got worse in all its four cases: as sets of four that says no more than
    # two cases do
    before, after = [1.0] * 8, [0.0] * 4 + [1.0] * 4
    alike = paired("f", ["p"] * 4 + ["q"] * 4, before, after, z=1.96)
    assert (alike.difference, round(alike.noise, 9)) == (-0.5, 0.98)
    assert alike.promoted
    assert not paired("f", list("abcdefgh"), before, after, z=1.96).promoted


def test_a_gate_without_a_case_says_what_is_held_out_and_what_to_do(tmp_path: Path):
    spec, store = CurriculumSpec(name="c"), LocalStore(tmp_path)
    engines = Engines(store, tmp_path)
    work = Work(
        spec,
        store,
        engines,
        load_domain("nano"),
        None,
        None,
        PACK,
        tmp_path,
        threading.Event(),
        lambda text: None,
        "s",
    )
    served: dict[Any, str] = dict.fromkeys(("generator", "verifier", "meta_verifier"), "v")
    with pytest.raises(
        ProofloopError, match=r"meta_verifier: 0 graded proofs and 0 analyses.*\nhint: "
    ):
        compare(work, "meta_verifier", "v", "w", CaseFile(), served)
    engines.close()


@pytest.mark.parametrize(
    ("iteration", "verifier", "generator", "start"),
    [
        (1, "nano-base", "nano-base", "nano-base"),
        (1, "runs/c/models/1-enhanced/000048", "runs/c/models/0-cold_start/000010", "verifier"),
        (2, "runs/c/models/1-consolidate/000900", "runs/c/models/1-consolidate/000900", "verifier"),
        (2, "runs/c/models/1-enhanced/000048", "runs/c/models/1-consolidate/000900", "generator"),
        (2, "runs/c/models/2-enhanced/000048", "runs/c/models/1-consolidate/000900", "verifier"),
        (2, "runs/c/models/1-enhanced/000048", "runs/c/models/1-generator/000040", "verifier"),
    ],
)
def test_an_iteration_goes_on_from_the_consolidated_model_whichever_role_it_serves(
    iteration: int, verifier: str, generator: str, start: str
):
    served: dict[Any, str] = {
        "verifier": verifier,
        "generator": generator,
        "meta_verifier": verifier,
    }
    stage = Stage(name=f"{iteration}-generator", kind="generator", iteration=iteration)
    assert stages.start_of("c", stage, served) == served.get(start, start)


def sample(
    said: float | None = 1.0, tokens: int = 10, role: ModelRole = "verifier", number: int = 0
) -> TrainingSample:
    return TrainingSample(
        key=str(number),
        role=role,
        group=f"{role}-0000",
        tokens=Tokens(prompt_ids=(1,), completion_ids=(2,) * tokens, logprobs=(-1.0,) * tokens),
        reward=1.0,
        reward_parts={"format": 0.0} if said is None else {"format": 1.0, PREDICTED: said},
        model_version="v",
    )


HONEST = look([sample(0.0), sample(1.0), sample(0.5)])


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ([sample(1.0)] * 8, "always-1 verifier: 100%"),
        ([sample(0.0)] * 8, "always-0 verifier: 100%"),
        (
            [sample(1.0)] * 8 + [sample(said, role="meta_verifier") for said in (0.0, 0.5, 1.0)],
            "always-1 verifier",
        ),
        ([sample(None), sample(None), sample(0.0), sample(1.0)], "format drift: 50%"),
        (
            [sample(0.0, tokens=40), sample(1.0, tokens=40)],
            "length drift: 40 tokens per answer, 10 at the start",
        ),
        ([sample(0.0, tokens=2), sample(1.0, tokens=2)], "length drift: 2 tokens"),
    ],
)
def test_the_watch_stops_a_stage_whose_reward_is_gamed(planted: list[TrainingSample], said: str):
    with pytest.raises(ProofloopError, match=said):
        check("1-verifier", [HONEST] * 5 + [look(planted)] * 5, Watch())


def test_the_watch_lets_an_honest_stage_and_a_generator_that_is_right_go_on():
    check("1-verifier", [HONEST] * 10, Watch())
    check("1-generator", [look([sample(1.0, role="generator")] * 8)] * 10, Watch())
    check("1-verifier", [HONEST] * 7 + [look([sample(1.0)] * 8)] * 3, Watch())


def test_the_watch_sees_each_of_two_judges_that_say_the_same_whichever_says_it_more():
    nods = [sample(1.0 if number else 0.0, role="meta_verifier") for number in range(24)]  # 0.96
    sights = [
        look([sample(1.0 if number else 0.0) for number in range(count)] + nods)
        for count in (40, 20, 40, 20, 40)
    ]
    with pytest.raises(ProofloopError, match="always-1 verifier"):
        check("1-enhanced", sights, Watch())


def test_the_stages_follow_the_method_and_ablations_stand_beside_what_they_ablate():
    spec = CurriculumSpec(name="c", ablations=("no-meta", "no-self"), measured=0)
    assert [stage.name for stage in spec.stages] == [
        *("0-cold_start", "1-verifier", "1-meta_verifier", "1-enhanced", "1-enhanced-no-meta"),
        *("1-generator", "1-generator-no-self", "1-label", "1-consolidate"),
        *("2-enhanced", "2-generator", "2-label", "2-consolidate"),
    ]


def test_an_ablation_begins_where_the_stage_began_that_it_is_compared_with():
    spec = CurriculumSpec(name="c", ablations=("no-meta",))
    done = {
        "1-verifier": StageManifest(stage="1-verifier", serves={"verifier": "score-only"}),
        "1-enhanced": StageManifest(stage="1-enhanced", serves={"verifier": "enhanced"}),
    }
    assert serving_before(spec, done, "1-enhanced")["verifier"] == "score-only"
    assert serving_before(spec, done, "1-generator")["verifier"] == "enhanced"


def test_harder_problems_come_from_the_second_iteration_on_in_turn_with_the_others(tmp_path: Path):
    spec, store = CurriculumSpec(name="c", harder="nano-long"), LocalStore(tmp_path)
    domains = load_domain("nano"), load_domain("nano-long")
    work = Work(
        spec,
        store,
        Engines(store, tmp_path),
        *domains,
        None,
        PACK,
        tmp_path,
        threading.Event(),
        print,
        "s",
    )
    steps = [question.count(". ") - 1 for question in work.questions(100, domains=work.domains(1))]
    assert set(steps) == {2, 3, 4, 5, 6}
    steps = [question.count(". ") - 1 for question in work.questions(100, domains=work.domains(2))]
    assert (set(steps[::2]), set(steps[1::2])) == ({2, 3, 4, 5, 6}, {7, 8})


def test_the_example_is_a_curriculum():
    assert load_curriculum(EXAMPLE).name == "nano-iterate"


def test_a_wrong_key_is_named_with_what_is_known(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[enhanced]\nrefesh = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key \[enhanced\] refesh") as caught:
        load_curriculum(tmp_path / "c.toml")
    assert "refresh, refresh_steps" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'harder = "nano-lng"\n',
            r"^harder = 'nano-lng' in .*c.toml: unknown domain\nhint: use one of: nano, nano-long;",
        ),
        (
            'domain = "geometry"\n',
            r"^domain = 'geometry' in .*c.toml: unknown domain\nhint: use one of: nano, nano-long;",
        ),
        (
            'ablations = ["no-self", "no-mta"]\n',
            r"^ablations\[1\] = 'no-mta' in .*c.toml: Input should be 'no-meta'",
        ),
        (
            '[data]\ntemperatures = ["1"]\n',
            r"^\[data\] temperatures\[0\] = '1' in .*c.toml: Input should be a valid",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_its_file(tmp_path: Path, text: str, said: str):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_curriculum(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"minibatch_seqs": 3},
            r"^unknown key minibatch_seqs in \[verifier.settings\] of curriculum 'c'\nhint: known",
        ),
        (
            {"kl_coefficient": -1},
            r"^kl_coefficient = -1 in \[verifier.settings\] of curriculum 'c': Input should be",
        ),
    ],
)
def test_a_wrong_setting_of_a_stage_is_named_with_its_section_and_its_curriculum(
    settings: dict[str, object], said: str
):
    with pytest.raises(ConfigError, match=said):
        stages.settings_of(
            CurriculumSpec.model_validate({"name": "c", "verifier": {"settings": settings}}),
            "verifier",
        )


def test_a_stage_that_is_given_something_else_keeps_its_steps(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[verifier]\ngroups = 40\n[generator]\nbeta = 0.3\n")
    assert load_curriculum(tmp_path / "c.toml").stages == CurriculumSpec(name="c").stages


def test_an_enhanced_stage_has_groups_of_both_data_sets(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[enhanced]\ngroups = 12\n")
    with pytest.raises(ConfigError, match="meta_groups = 12 leaves none of groups = 12 for D_v"):
        load_curriculum(tmp_path / "c.toml")


def test_the_time_left_is_estimated_from_stages_of_the_same_kind(
    tmp_path: Path,
):
    spec, store = CurriculumSpec(name="c", measured=0, ablations=("no-meta",)), LocalStore(tmp_path)
    for stage in spec.stages:
        if stage.iteration < 2:
            seconds = {"1-enhanced": 500.0, "1-enhanced-no-meta": 100.0}.get(stage.name, 10.0)
            finish(store, spec, StageManifest(stage=stage.name, seconds=seconds))
    assert read_status(store, spec).seconds_left == 500 + 3 * 10
    for step in range(spec.enhanced.steps // 2):
        figures = {
            "run_id": "c",
            "role": "verifier",
            "step": step,
            "version": "v",
            "sampled_by": (),
        }
        put_record(
            store,
            keys.step("c", "2-enhanced", step),
            TrainingStep(**figures, figures={}, reward_parts={}),
        )
    assert read_status(store, spec).seconds_left == 250 + 3 * 10


def test_an_ablation_is_named_once(tmp_path: Path):
    (tmp_path / "c.toml").write_text('ablations = ["no-self", "no-meta", "no-self"]\n')
    with pytest.raises(ConfigError, match=r"^ablations = .* has a duplicate"):
        load_curriculum(tmp_path / "c.toml")


def test_a_curriculum_costs_its_engines_hours_and_counts_the_tokens_it_trained_on(tmp_path: Path):
    prices = Prices(per_engine_hour=6.0, per_million_completion_tokens=1000.0)
    spec, store = CurriculumSpec(name="c", measured=0, prices=prices), LocalStore(tmp_path)
    finish(store, spec, StageManifest(stage="1-verifier", seconds=1800.0))
    step = TrainingStep(
        run_id="c",
        role="verifier",
        step=1,
        version="v",
        sampled_by=("v",),
        figures={"completion_length": 12.5, "samples": 8.0},
        reward_parts={},
    )
    put_record(store, keys.step("c", "1-verifier", 1), step)
    now = read_status(store, spec)
    assert (now.trained_tokens, now.cost) == (100, 3.0)


def test_judges_that_learn_together_are_sampled_at_one_temperature(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[sampling.verifier]\ntemperature = 0.8\n")
    with pytest.raises(
        ConfigError, match=r"temperatures 0.8 and 1: \[enhanced\] trains on answers of both"
    ):
        load_curriculum(tmp_path / "c.toml")


@pytest.mark.parametrize("kind", ["openai", "triton"])
def test_a_curriculum_is_not_begun_with_a_server_that_goes_on_with_its_first_model(
    tmp_path: Path, kind: str
):
    (tmp_path / "c.toml").write_text(
        f'[engine]\nkind = "{kind}"\nsettings = {{ model = "served" }}\n'
    )
    with pytest.raises(
        ConfigError, match=r'^\[engine.settings\] model = "served" and a curriculum in .* do not go'
    ):
        load_curriculum(tmp_path / "c.toml")


def test_a_consolidation_that_could_keep_no_proof_is_refused(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[generator]\nbeta = 0.0\n")
    said = (
        r"keep = 0.99 in .* is above the highest reward of a proof: \[generator\] alpha \+ beta ="
        r" 0.76\nhint: "
    )
    with pytest.raises(ConfigError, match=said):
        load_curriculum(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("[generator]\nbeta = 0.0\n[consolidate]\nkeep = 0.75\n")
    assert load_curriculum(tmp_path / "c.toml").consolidate.keep == 0.75


FILES = 'start = "mine"\n[files]\nproblems = "p.jsonl"\nproofs = "v.jsonl"\nanalyses = "a.jsonl"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('domain = "nano"\n' + FILES, r"domain and \[files\] in .* do not go together"),
        (
            'harder = "nano-long"\n' + FILES,
            r"harder = .nano-long. and \[files\] do not go together",
        ),
        (
            FILES + "[cold_start]\nsteps = 5\n",
            r"\[cold_start\] and \[files\] in .*: only a domain has demonstrations",
        ),
        (
            FILES.replace("analyses", "#"),
            r"\[files\] analyses is missing: .*\nhint: give analyses, or",
        ),
        (FILES.replace("proofs", "#"), r"\[files\] proofs is missing"),
        (
            FILES.replace("start", "#"),
            r"start is missing in .*: a curriculum with \[files\] has no default model",
        ),
    ],
)
def test_files_that_do_not_go_with_the_rest_are_refused(tmp_path: Path, text: str, said: str):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_curriculum(tmp_path / "c.toml")


def write_rows(folder: Path) -> None:
    for name in ("p", "v", "a"):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps({'question': name})}\n")


def test_files_begin_without_a_cold_start_and_are_frozen_like_a_domain(tmp_path: Path):
    (tmp_path / "c.toml").write_text(FILES)
    write_rows(tmp_path)
    spec, store = load_curriculum(tmp_path / "c.toml"), LocalStore(tmp_path)
    assert (spec.stages[0].name, spec.prompts) == ("1-verifier", "math")
    for _ in range(2):
        freeze(store, spec)
    assert find_curriculum(store, "c") == spec.model_copy(update={"base": Path()})


@pytest.mark.parametrize("name", ["p", "v", "a"])
def test_a_file_that_changed_since_the_curriculum_began_is_refused(tmp_path: Path, name: str):
    (tmp_path / "c.toml").write_text(FILES)
    write_rows(tmp_path)
    spec, store = load_curriculum(tmp_path / "c.toml"), LocalStore(tmp_path)
    freeze(store, spec)
    with (tmp_path / f"{name}.jsonl").open("a") as file:
        file.write('{"question": "more"}\n')
    said = (
        rf"^{name}.jsonl has changed since curriculum 'c' was started: its SHA-256 is \w+, and was"
        r" \w+\nhint: restore"
    )
    with pytest.raises(ConfigError, match=said):
        freeze(store, spec)
    freeze(store, spec.model_copy(update={"name": "d"}))
    write_rows(tmp_path)
    freeze(store, spec)


ROW = {"problem": QUESTION, "proof": SOLUTION, "score": 0.5}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {**ROW, "score": 0.7},
            r"^row 2 of .*: score = 0.7: Input should be 0.0, 0.5 or 1.0\nhint: each row has",
        ),
        (
            {**ROW, "proof": ""},
            r"^row 2 of .*: proof = '': String should have at least 1 character",
        ),
        ({"proof": "x", "score": 1}, r"^row 2 of .*: question: Field required"),
        (3, r"^row 2 of .*: value = 3: Input should be a valid dictionary"),
    ],
)
def test_a_bad_graded_row_is_named_with_its_number(tmp_path: Path, row: object, said: str):
    (tmp_path / "v.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(row)}\n")
    with pytest.raises(ConfigError, match=said):
        read_graded(tmp_path / "v.jsonl", GradedProof)


def test_graded_rows_are_read_once_each_and_split_by_their_question(tmp_path: Path):
    rows = [{**ROW, "problem": f"Prove {n}."} for n in range(100)]
    (tmp_path / "v.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, *rows]))
    found = read_graded(tmp_path / "v.jsonl", GradedProof)
    assert len(found) == 100
    assert found[0] == GradedProof(question=" Prove 0.\n", solution=SOLUTION, score=0.5)
    splits = [in_split(found, split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 100
    assert len(splits[0]) > 60


def test_another_curriculum_of_the_same_name_is_refused(tmp_path: Path):
    store = LocalStore(tmp_path)
    freeze(store, CurriculumSpec(name="c"))
    less_memory = {
        "engine": {"settings": {"max_batch": 8, "models_kept": 2}},
        "verifier": {"settings": {"tokens_per_pass": 99}},
    }
    freeze(store, CurriculumSpec.model_validate({"name": "c", "base": tmp_path, **less_memory}))
    with pytest.raises(ConfigError, match=r"was started with different settings: .* = .*, was "):
        freeze(store, CurriculumSpec(name="c", seed=1))


def test_a_version_serves_from_the_manifest_on_that_says_so(tmp_path: Path):
    store, spec = LocalStore(tmp_path), CurriculumSpec(name="c", measured=0)
    finish(
        store,
        spec,
        StageManifest(
            stage="0-cold_start", version="m0", serves=dict.fromkeys(("verifier",), "m0")
        ),
    )
    finish(store, spec, StageManifest(stage="1-verifier", version="m1", serves={}, seconds=30.0))
    assert serving(spec, manifests(store, spec)) == {
        "generator": "nano-base",
        "verifier": "m0",
        "meta_verifier": "nano-base",
    }
    now = read_status(store, spec)
    assert (now.done, now.running, now.next, now.seconds) == (
        2,
        "1-meta_verifier",
        "1-enhanced",
        30.0,
    )
    assert store.exists(keys.stage("c", "1-verifier"))
