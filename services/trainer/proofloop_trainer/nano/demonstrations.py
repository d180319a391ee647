"""Demonstrations for the cold start, deliberately imperfect, so that there is something left to learn by the loop; and
practice for the base model, whose answers are true.

Every flaw kind occurs, because a judge that never saw a kind is what a generator finds first. The rates below are what
makes a base model that proves six tenths of its problems and judges about four fifths of its proofs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from proofloop.domains.base import Defect
from proofloop.domains.nano import (
    FLAW_KINDS,
    LABELS,
    MODULUS,
    OPERATORS,
    Chain,
    Line,
    NanoDomain,
    calculate,
    find_defects,
    omission,
    parse_question,
    render_analysis,
    render_proof,
    score_of,
    true_lines,
)
from proofloop.prompts.packs import load_pack
from proofloop_trainer.nano.tokenizer import (
    EVALUATION,
    EVALUATION_SCORE,
    JUDGEMENT,
    JUDGEMENT_SCORE,
    NO_CLAIM,
    SELF_EVALUATION,
    SOLUTION,
)


@dataclass(frozen=True)
class Habits:
    """Shares of the tasks; of flawed proofs with a second flaw; of omitted steps after which a wrong value goes on."""

    tasks: Mapping[str, float]
    second_flaw: float
    lost_carry: float


BASE = Habits(
    tasks={
        "proof_generation": 0.3,
        "proof_refinement": 0.08,
        "proof_verification": 0.36,
        "meta_verification": 0.26,
    },
    second_flaw=0.2,
    lost_carry=0.5,
)
COLD_START = Habits(
    tasks={
        "proof_generation": 0.15,
        "proof_refinement": 0.05,
        "proof_verification": 0.3,
        "meta_verification": 0.5,
    },
    second_flaw=0.3,
    lost_carry=0.6,
)
"""Half of it is about judging critiques: a weak meta-verifier is the first thing that a verifier outwits. A model that
leaves out a step mostly carries on a wrong value too, and two flaws are what its verifier overlooks longest.
"""

FLAWED_PROOF, FLAWED_REFINEMENT, FLAWED_UNDER_REVIEW = 0.42, 0.25, 0.6
ODD_ORDER, GAP = 0.06, 0.08  # shares of flawed proofs
HONEST_SELF_EVALUATION = 0.45  # share of flawed proofs whose own evaluation looks at all
FALSE_ALARM, OVERLOOKED, WRONG_STEP, WRONG_KIND, WRONG_SCORE = 0.14, 0.11, 0.12, 0.06, 0.02  # of critiques
WRONG_LINE = 0.08  # share of omissions named with another line than the one that is missing
NO_SUCH_STEP, SAID_TWICE = 0.08, 0.06  # shares of invented claims about a step of no problem; of repeated claims
REAL_CLAIMS, ABOUT_A_FLAW, MISSTATED = 0.7, 0.8, 0.8
"""Of judged claims, where there is something to find: real ones; of false ones, those about a flaw that is there; of
these, where a step is missing, those that show a wrong line.
"""
WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT = 0.4, 0.1, 0.05, 0.45
"""What is wrong in such a line. With another value or operand the result is that of the wrong line, as where a verifier
miscalculates: only the proof tells that it is false.
"""
HASTY_JUDGEMENT = 0.03  # share of meta-critiques with one wrong word
DOMAIN, LONG_DOMAIN = NanoDomain(), NanoDomain("nano-long")
LONG = 0.15  # share of demonstrations about chains that are longer than those of `nano`
LONG_PRACTICE, FLAWED_LINES, PRACTISED_JUDGEMENT, PRACTISED_REAL = 0.35, 0.25, 0.5, 0.5
CRITICISED_GAP, JUDGED_GAP = 0.15, 0.35  # shares of practised proofs with several steps left out in a row
PACK = load_pack("nano")
LineMarks = tuple[int, ...]  # of label, value, operator, operand, result
ClaimMarks = tuple[int, ...]  # of the same of a line that is said to be missing, then of the value that is gone on with
IGNORED = -100


@dataclass(frozen=True)
class Demonstration:
    """One prompt with its answer. `marks`: of each proof line, in the order of the text.

    `claims`: of each omission that the prompt's analysis claims, in a prompt that asks for a judgement.
    """

    prompt: str
    answer: str
    marks: tuple[LineMarks, ...]
    claims: tuple[ClaimMarks, ...] = ()


def demonstrate(seed: int, habits: Habits = BASE) -> Iterator[Demonstration]:
    """Endless demonstrations of all four tasks, from the training split's problems."""
    rng = random.Random(f"demonstrations/{seed}")
    tasks = {
        "proof_generation": _generation,
        "proof_refinement": _refinement,
        "proof_verification": _verification,
        "meta_verification": _meta_verification,
    }
    for index in range(2**62):
        domain = LONG_DOMAIN if rng.random() < LONG else DOMAIN
        problem = domain.pose(index, split="train", seed=seed)
        task = rng.choices(list(habits.tasks), list(habits.tasks.values()))[0]
        yield tasks[task](rng, problem.question, parse_question(problem.question), habits)


def practise(seed: int) -> Iterator[Demonstration]:
    """Endless proofs with many flaws: with true critiques, or with half false ones and true judgements of these.

    Mostly what is hardest to see: wrong copies for critiques, and for judgements omissions claimed with a wrong digit.
    """
    rng = random.Random(f"practice/{seed}")
    for index in range(2**62):
        domain = LONG_DOMAIN if rng.random() < LONG_PRACTICE else DOMAIN
        question = domain.pose(index, split="train", seed=seed).question
        chain, is_judged = parse_question(question), rng.random() < PRACTISED_JUDGEMENT
        kinds = (*FLAW_KINDS, "missing", "missing") if is_judged else (*FLAW_KINDS, "miscopied")
        flaws = {step.label: rng.choice(kinds) for step in chain.steps if rng.random() < FLAWED_LINES}
        if rng.random() < (JUDGED_GAP if is_judged else CRITICISED_GAP):
            flaws |= gap(rng, chain)
        if lines := lines_with_flaws(rng, chain, flaws, BASE.lost_carry):
            if is_judged:
                yield _judged(rng, question, chain, lines, real_share=PRACTISED_REAL, hasty=0.0)
            else:
                yield _criticised(question, chain, lines)


def render_critique(claims: Sequence[Defect], score: float) -> str:
    """A verifier's whole answer."""
    return f"{EVALUATION}{render_analysis(claims)}{EVALUATION_SCORE}\\boxed{{{score:g}}}"


def render_answer(lines: Sequence[Line], critique: str) -> str:
    """A generator's whole answer: the proof and its own critique."""
    return f"{SOLUTION}{render_proof(lines)}{SELF_EVALUATION}{critique}"


def render_judgement(claims: Sequence[Defect], real: Sequence[bool], quality: float) -> str:
    """A meta-verifier's whole answer."""
    words = [
        f"Step {claim.step}: {'real' if is_real else 'fake'}." for claim, is_real in zip(claims, real, strict=True)
    ]
    return f"{JUDGEMENT}{chr(10).join(words) or NO_CLAIM}{JUDGEMENT_SCORE}\\boxed{{{quality:g}}}"


def write_proof(rng: random.Random, chain: Chain, flawed_share: float, habits: Habits = BASE) -> tuple[Line, ...]:
    """A proof that is flawed with this probability."""
    if rng.random() >= flawed_share:
        return true_lines(chain)
    draw = rng.random()
    if draw < ODD_ORDER:
        return _disorder(rng, list(true_lines(chain)))
    if draw < ODD_ORDER + GAP:
        return lines_with_flaws(rng, chain, gap(rng, chain), habits.lost_carry)
    count = 2 if rng.random() < habits.second_flaw else 1
    labels = rng.sample([step.label for step in chain.steps], count)
    return lines_with_flaws(rng, chain, {label: rng.choice(FLAW_KINDS) for label in labels}, habits.lost_carry)


def mark_lines(chain: Chain, lines: Sequence[Line]) -> tuple[LineMarks, ...]:
    """For each line, which of its five fields is wrong, by the number (from 1) of the step at fault; 0 where right.

    A label is wrong if it does not come next: then the step left out is at fault, or the one that comes again.
    """
    marks, value, place = list[LineMarks](), chain.start, 0
    for line in lines:
        index = LABELS.index(line.label)
        for step in chain.steps[place:index]:
            value = step.apply(value)
        step, right = chain.steps[index], calculate(line.value, line.operator, line.operand)
        copied = (line.value != value, line.operator != step.operator, line.operand != step.operand)
        at_fault = 1 + min(place, index) if index != place else 0
        marks.append((at_fault, *((1 + index) * is_wrong for is_wrong in (*copied, line.result != right))))
        value, place = line.result, index + 1
    return tuple(marks)


def mark_claims(claims: Sequence[Defect], defects: Sequence[Defect]) -> tuple[ClaimMarks, ...]:
    """For each claim of an omission, which of its fields is wrong, by the number (from 1) of the step; 0 where right.

    Of a step that is not missing the label is wrong, and nothing is said of the rest.
    """
    missing = {defect.step: _fields(defect) for defect in defects if defect.kind == "missing"}
    marks = list[ClaimMarks]()
    for claim in claims:
        if claim.kind != "missing":
            continue
        shown, at_fault = _fields(claim), 1 + LABELS.index(claim.step)
        if claim.step in missing:
            right = [*missing[claim.step], ""]  # where nothing is gone on with, a claim of it is wrong
            marks.append((0, *(at_fault * (field != true) for field, true in zip(shown, right, strict=False))))
        else:
            marks.append((at_fault, *(IGNORED for _ in shown)))
    return tuple(marks)


def imperfect_claims(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> tuple[Defect, ...]:
    """What a hurried verifier names: mostly the real defects (the first two), sometimes none or others."""
    defects = find_defects(chain, lines)
    if not defects:
        return (_invent(rng, chain, lines),) if rng.random() < FALSE_ALARM else ()
    draw, first = rng.random(), defects[0]
    if draw < OVERLOOKED:
        return ()
    if draw < OVERLOOKED + WRONG_STEP:
        label = rng.choice([step.label for step in chain.steps if step.label != first.step])
        return (_claim(chain, lines, label, first.kind),)
    if draw < OVERLOOKED + WRONG_STEP + WRONG_KIND:
        return (_claim(chain, lines, first.step, rng.choice([kind for kind in FLAW_KINDS if kind != first.kind])),)
    return tuple(misstate(rng, claim) if rng.random() < WRONG_LINE else claim for claim in defects[:2])


def _generation(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    lines = write_proof(rng, chain, FLAWED_PROOF, habits)
    answer = render_answer(lines, _self_critique(rng, chain, lines))
    return Demonstration(PACK.prove(question).text, answer, mark_lines(chain, lines))


def _refinement(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    before = write_proof(rng, chain, 0.8, habits)
    after = write_proof(rng, chain, FLAWED_REFINEMENT, habits)
    analysis = _critique(rng, chain, before)
    prompt = PACK.refine(question, [(render_proof(before), [analysis])]).text
    marks = (*mark_lines(chain, before), *mark_lines(chain, after))
    return Demonstration(prompt, render_answer(after, _self_critique(rng, chain, after)), marks)


def _verification(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    lines = write_proof(rng, chain, FLAWED_UNDER_REVIEW, habits)
    prompt = PACK.verify(question, render_proof(lines)).text
    return Demonstration(prompt, _critique(rng, chain, lines), mark_lines(chain, lines))


def _meta_verification(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    lines = write_proof(rng, chain, 0.75, habits)
    return _judged(rng, question, chain, lines, real_share=REAL_CLAIMS, hasty=HASTY_JUDGEMENT)


def _criticised(question: str, chain: Chain, lines: tuple[Line, ...]) -> Demonstration:
    """By a perfect verifier."""
    defects = find_defects(chain, lines)
    critique = render_critique(defects[:2], score_of(defects))
    return Demonstration(PACK.verify(question, render_proof(lines)).text, critique, mark_lines(chain, lines))


def _judged(
    rng: random.Random, question: str, chain: Chain, lines: tuple[Line, ...], *, real_share: float, hasty: float
) -> Demonstration:
    """A critique with false claims, judged by a meta-verifier that mistakes the share `hasty` of the claims."""
    defects, proof = find_defects(chain, lines), render_proof(lines)
    claims = _claims_partly_real(rng, chain, lines, real_share)
    analysis = render_critique(claims, _score(rng, claims, wrong_share=0.12))
    quality = DOMAIN.check_critique(question, proof, analysis).quality
    real = [(claim in defects) != (rng.random() < hasty) for claim in claims]
    prompt = PACK.judge(question, proof, analysis).text
    answer = render_judgement(claims, real, quality)
    return Demonstration(prompt, answer, mark_lines(chain, lines), mark_claims(claims, defects))


def _critique(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> str:
    claims = imperfect_claims(rng, chain, lines)
    return render_critique(claims, _score(rng, claims, wrong_share=WRONG_SCORE))


def _self_critique(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> str:
    """Of a flawed proof, honest in less than half of the cases; of a good one, nearly always."""
    defects = find_defects(chain, lines)
    if defects and rng.random() >= HONEST_SELF_EVALUATION:
        return render_critique((), 1.0)
    claims = defects[:2] if defects or rng.random() > 0.04 else (_invent(rng, chain, lines),)
    return render_critique(claims, score_of(claims))


def _claims_partly_real(
    rng: random.Random, chain: Chain, lines: Sequence[Line], real_share: float
) -> tuple[Defect, ...]:
    """No, one or two claims, of which this share is real where there is something to find."""
    remaining, claims = list(find_defects(chain, lines)), list[Defect]()
    for _ in range(rng.choices((0, 1, 2), (0.1, 0.55, 0.35))[0]):
        is_real = bool(remaining) and rng.random() < real_share
        claim = remaining.pop(0) if is_real else near_miss(rng, chain, lines)
        if claim not in claims:
            claims.append(claim)
    if len(claims) == 1 and rng.random() < SAID_TWICE:
        claims *= 2
    return tuple(claims)


def near_miss(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> Defect:
    """A false claim, mostly about a flaw that is there: with a wrong line, or of another kind or the step beside."""
    defects, claim = find_defects(chain, lines), _invent(rng, chain, lines)
    if defects and rng.random() < ABOUT_A_FLAW:
        defect = rng.choice([defect for defect in defects[:2] if defect.detail] or defects)
        if defect.detail and rng.random() < MISSTATED:
            claim = misstate(rng, defect)
        elif rng.random() < 0.5:
            claim = _claim(chain, lines, defect.step, claim.kind)
        else:
            places = [LABELS.index(defect.step) + way for way in (-1, 1)]
            claim = _claim(chain, lines, LABELS[rng.choice(places) % len(chain.steps)], defect.kind)
    return claim if claim not in defects else near_miss(rng, chain, lines)


def _invent(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> Defect:
    labels = LABELS if rng.random() < NO_SUCH_STEP else [step.label for step in chain.steps]
    return _claim(chain, lines, rng.choice(labels), rng.choice(FLAW_KINDS))


def _claim(chain: Chain, lines: Sequence[Line], label: str, kind: str) -> Defect:
    """A claim in its wording: an omission shows lines of the proof, or right ones; of no such step the last one."""
    if kind != "missing":
        return Defect(label, kind)
    shown = {line.label: line for line in (*true_lines(chain), *lines)}
    last = chain.steps[-1].label
    after = shown.get(LABELS[LABELS.index(label) + 1]) if label < last else None
    line = replace(shown[min(label, last)], label=label)
    return omission(line, (after.label, after.value) if after else None)


def misstate(rng: random.Random, claim: Defect) -> Defect:
    """An omission shown with another line, wrong as `WRONG_VALUE` and the others say; any other claim stays."""
    places = [place for place, character in enumerate(claim.detail) if character.isdigit()]
    if not places:
        return claim
    text, (value, operand, result, *_) = list(claim.detail), places
    shares = (WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT)[: len(places)]
    wrong = rng.choices(places, shares)[0]
    text[wrong] = str(_another_digit(rng, int(text[wrong])))
    if wrong in (value, operand):
        text[result] = str(calculate(int(text[value]), text[value + 2], int(text[operand])))
    return replace(claim, detail="".join(text))


def _fields(claim: Defect) -> list[str]:
    """Value, operator, operand and result that an omission shows, and the value that is gone on with, if it is."""
    return re.findall(r"[-+*]|\d", claim.detail)


def _score(rng: random.Random, claims: Sequence[Defect], *, wrong_share: float) -> float:
    return rng.choice((0.0, 0.5, 1.0)) if rng.random() < wrong_share else score_of(claims)


def lines_with_flaws(rng: random.Random, chain: Chain, flaws: dict[str, str], lost_carry: float) -> tuple[Line, ...]:
    """Write the proof step by step; what a wrong line states is carried on."""
    lines, value = list[Line](), chain.start
    for step in chain.steps:
        line = step.line(value)
        flaw = flaws.get(step.label)
        if flaw == "miscalculated":
            line = replace(line, result=_another_digit(rng, line.result))
        elif flaw == "miscopied":
            line = _miscopy(rng, line)
        if flaw != "missing":
            lines.append(line)
        lost = flaw == "missing" and rng.random() < lost_carry
        value = _another_digit(rng, line.result) if lost else line.result
    return tuple(lines)


def gap(rng: random.Random, chain: Chain) -> dict[str, str]:
    """Two or more steps in a row left out, wherever: a generator that saves itself work ends so. Never all of them."""
    length = rng.randint(min(2, len(chain.steps) - 1), len(chain.steps) - 1)
    start = rng.randint(0, len(chain.steps) - length)
    return {step.label: "missing" for step in chain.steps[start : start + length]}


def _miscopy(rng: random.Random, line: Line) -> Line:
    field = rng.choice(("value", "operator", "operand"))
    if field == "operator":
        line = replace(line, operator=rng.choice([operator for operator in OPERATORS if operator != line.operator]))
    else:
        line = replace(line, **{field: _another_digit(rng, getattr(line, field))})
    return replace(line, result=calculate(line.value, line.operator, line.operand))


def _disorder(rng: random.Random, lines: list[Line]) -> tuple[Line, ...]:
    """Repeat a line, or exchange two."""
    place = rng.randrange(len(lines) - 1)
    if rng.random() < 0.5:
        lines.insert(place + 1, lines[place])
    else:
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return tuple(lines)


def _another_digit(rng: random.Random, digit: int) -> int:
    return (digit + rng.randrange(1, MODULUS)) % MODULUS
