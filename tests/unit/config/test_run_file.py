"""run.toml: what is left out has its default, and whatever is wrong is named with its place, value
and way out.
"""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.config.frozen import first_difference
from proofloop.config.run_file import RunSpec, load_runspec, parse_runspec
from proofloop.config.run_file.training import FineTuning
from proofloop.errors import ConfigError
from proofloop.schema.records import MODEL_ROLES, Sampling

SMALLEST = '[problems]\ndomain = "nano"\n'
GIVEN = '[problems]\ngiven_proofs = "proofs.jsonl"\n'


def load(folder: Path, text: str | bytes, name: str = "small.toml") -> RunSpec:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_runspec(file)


def test_the_smallest_run_has_the_defaults_of_the_paper(tmp_path: Path) -> None:
    spec = load(tmp_path, SMALLEST)
    assert (spec.name, spec.base, spec.prompts, spec.seed) == ("small", tmp_path, "nano", 0)
    assert (spec.reward.preset, spec.reward.alpha, spec.reward.beta, spec.reward.meta) == (
        "paper",
        0.76,
        0.24,
        True,
    )
    assert spec.labeling.stop_early and spec.labeling.k <= spec.labeling.n
    assert spec.training.roles == ()


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    text = """
name = "mine"
seed = 3
prompts = "my-pack"
[problems]
file = "problems.jsonl"
proofs_per_problem = 2
[engine]
kind = "triton"
settings = { endpoints = ["localhost:1"], nested = { a = 1 } }
[models]
generator = "g-1"
verifier = "v-7"
meta_verifier = "m-1"
[sampling.verifier]
temperature = 0
max_tokens = 77
[labeling]
n = 64
m = 5
k = 8
confirm_at = 1
stop_early = false
[reward]
preset = "weighted"
alpha = 1
[training.verifier]
steps = 2
"""
    spec = load(tmp_path, text)
    assert (spec.name, spec.seed, spec.problems.file) == ("mine", 3, Path("problems.jsonl"))
    assert spec.engine.settings == {"endpoints": ["localhost:1"], "nested": {"a": 1}}
    assert [spec.model_of(role) for role in ("generator", "verifier")] == ["g-1", "v-7"]
    assert spec.sampling_of("verifier") == Sampling(temperature=0, max_tokens=77)
    assert spec.sampling_of("generator") == Sampling()
    assert (spec.labeling.n, spec.labeling.confirm_at, spec.reward.alpha) == (64, 1.0, 1.0)
    assert spec.training.roles == ("verifier",)


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ('[problems]\ndomain = "nano-long"\n', "nano"),
        ('[problems]\nfile = "p.jsonl"\n', "math"),
        ('prompts = "mine"\n' + SMALLEST, "mine"),
        ('prompts = "nano"\n[problems]\nfile = "p.jsonl"\n', "nano"),
    ],
)
def test_problems_have_the_prompts_that_fit_them_unless_others_are_named(
    tmp_path: Path, text: str, prompts: str
) -> None:
    assert load(tmp_path, text).prompts == prompts


TRAINS = SMALLEST + "[labeling]\nstop_early = false\n[training.verifier]\nsteps = 1\n"


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        (SMALLEST, "lenient"),
        (TRAINS, "strict"),
        ('reading = "strict"\n' + SMALLEST, "strict"),
        ('reading = "lenient"\n' + TRAINS, "lenient"),
    ],
)
def test_answers_are_read_strictly_where_they_earn_rewards_unless_the_run_says_how(
    tmp_path: Path, text: str, reading: str
) -> None:
    assert load(tmp_path, text).how_to_read == reading


def test_a_run_is_the_same_after_its_stay_in_the_store(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        SMALLEST + "[sampling.generator]\nmax_tokens = 9\n[engine]\nsettings = { seed = 1 }\n",
    )
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert parse_runspec(spec.model_dump(), "a test") == spec


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf" + SMALLEST.encode()).problems.domain == "nano"


BAD = [
    (SMALLEST + "[lora]\n", r"\[lora\] says how models are trained, and this run trains none .*\nhint: set \[training.ROLE\] steps"),
    (TRAINS + "[lora]\nrank = 0\n", r"\[lora\] rank = 0 .*greater than or equal to 1"),
    ("[fine_tuning]\ndomain = \"nano\"\nsteps = 1\n[lora]\n", r"\[lora\] and \[fine_tuning\] domain = 'nano' do not go together"),
    ("sed = 1\n" + SMALLEST, r"^unknown key sed in .*small.toml\nhint: known keys: budget, engine, fine_tuning, flow,"
        r" keep_tokens, labeling, lora, models, name, "),
    ('base = "/"\n' + SMALLEST, r"^unknown key base in .*small.toml\nhint: known keys: budget, engine, fine_tuning, flow"),
    ('[problem]\ndomain = "nano"\n', r"^unknown key problem in .*\nhint: known keys: .*problems"),
    (SMALLEST + "[labling]\nn = 1\n", r"^unknown key labling in .*\nhint: known keys: .*labeling"),
    (SMALLEST + "[labeling]\nnn = 1\n", r"^unknown key \[labeling\] nn in .*\nhint: known keys: accept_at, by, confirm_at, given_m, k, m, n, retry_unreadable, rule, self_m,"
        r" stop_early$"),
    (SMALLEST + '[models]\ncritic = "x"\n', r"^unknown key \[models\] critic in .*\nhint: known keys: generator, meta_verifier,"
        r" verifier$"),
    (SMALLEST + "[sampling.critic]\ntop_p = 1\n", r"^unknown key \[sampling\] critic in .*\nhint: known keys: generator, meta_"),
    (SMALLEST + "[training.labeler]\nsteps = 1\n", r"^unknown key \[training\] labeler in .*\nhint: known keys: .*generator, .*verifier$"),
    (SMALLEST + "[flow]\ntrainer = 1\n", r"^unknown key \[flow\] trainer in "),
    (SMALLEST + "[sampling.verifier]\ntemprature = 1\n", r"^unknown key \[sampling.verifier\] temprature in .*\nhint: known keys: max_tokens, temp"),
    (SMALLEST + "[labeling]\nn = 8\nk = 9\n", r"^\[labeling\] in .*: k = 9 is more than n = 8: .*\nhint: lower k to 8 or less, or raise"
        r" n to 9 or more$"),
    ('reading = "loose"\n' + SMALLEST, r"^reading = 'loose' in .*: Input should be 'strict' or 'lenient'"),
    (SMALLEST + "[labeling]\nn = 0\n", r"^\[labeling\] n = 0 in .*: Input should be greater than or equal to 1$"),
    (SMALLEST + '[labeling]\nn = "8"\n', r"^\[labeling\] n = '8' in .*: Input should be a valid integer.*\nhint: write numbers, true and"
        r" false without quotes$"),
    (SMALLEST + "[labeling]\nn = true\n", r"^\[labeling\] n = True in .*: Input should be a valid integer$"),
    (SMALLEST + "[labeling]\nn = 8.5\n", r"^\[labeling\] n = 8.5 in .*: Input should be a valid integer"),
    (SMALLEST + "[labeling]\nstop_early = 1\n", r"^\[labeling\] stop_early = 1 in .*: Input should be a valid boolean"),
    (SMALLEST + "[training.verifier]\nsteps = 1\n", r"^\[labeling\] stop_early = true and \[training.verifier\] in .*small.toml do not"
        r" .*\nhint: set stop_early = false$"),
    (SMALLEST + '[reward]\nproof_score = "mean"\n', r'^\[labeling\] stop_early = true and \[reward\] proof_score = "mean" in .*small.toml'
        r" do not go together: R_Y is the mean over all n critiques of a proof\nhint: set stop_early = false$"),
    (SMALLEST + "[labeling]\nconfirm_at = 0.7\n", r"^\[labeling\] confirm_at = 0.7 in .*: Input should be 0.5 or 1"),
    (SMALLEST + "[engine.critic]\nkind = 'local'\n", r"^unknown key \[engine\] critic in .*\nhint: known keys: generator, kind, meta_verifier,"
        r" settings, verifier; write other"),
    (SMALLEST + "[engine.verifier]\nbase_url = 'http://a'\n", r"^unknown key \[engine.verifier\] base_url in .*\nhint: known keys: kind, settings;"
        r" write other settings under \[engine.verifier.settings\]$"),
    (SMALLEST + "[engine]\nverifier = 'http://a/v1'\n", r"^\[engine\] verifier = 'http://a/v1' in .*: should be a table: write its keys under"
        r" \[engine.verifier\]$"),
    (SMALLEST + "[engine.verifier.settings]\napi_key = 's3cret'\n", r"^\[engine.verifier\] in .*: settings has the secret api_key, .*\nhint: remove it, and set PROOFLOOP_OPENAI"),
    (SMALLEST + "[engine.settings]\nendpoints = [{ api_key = 's3cret' }]\n", r"^\[engine\] in .*: settings has the secret api_key, "),
    (SMALLEST + "[engine.settings]\nextra_body = { api_key = 's3cret' }\n", r"^\[engine\] in .*: settings has the secret api_key, "),
    (SMALLEST + "[engine.settings]\nendpoints = [{ extra_body = { headers = { Authorization = 'Bearer s3cret' } } }]\n", r"^\[engine\] in .*: settings has the secret Authorization, "),
    (SMALLEST + "[engine.verifier]\nkind = 'openai'\n", r"^\[models\] verifier is missing: engine 'openai' has no default model"),
    (TRAINS + "[engine.verifier]\nkind = 'openai'\n[models]\nverifier = 'v'\n", r"""^\[engine.verifier\] kind = "openai" and \[training.verifier\] in .* do not go together"""),
    (SMALLEST + '[reward]\npreset = "papers"\n', r"^\[reward\] preset = 'papers' in .*: Input should be 'paper' or 'weighted'"),
    (SMALLEST + "[reward]\nalpha = nan\n", r"^\[reward\] alpha = nan in "),
    (SMALLEST + "[prices]\nper_engine_hour = inf\n", r"^\[prices\] per_engine_hour = inf in "),
    (SMALLEST + "[sampling.verifier]\ntop_p = 0\n", r"^\[sampling.verifier\] top_p = 0 in .*: Input should be greater than 0$"),
    (SMALLEST + "[sampling.verifier]\ntemperature = inf\n", r"^\[sampling.verifier\] temperature = inf in "),
    (SMALLEST + "[sampling]\nverifier = 1\n", r"^\[sampling\] verifier = 1 in "),
    ("problems = 1\n", r"^problems = 1 in "),
    ('[problems]\ndomain = "nano"\nfile = "x"\n', r"^\[problems\] in .*: give exactly one of domain and file$"),
    ('[problems]\nfile = "x"\ngiven_proofs = "y"\n', r"^\[problems\] in .*: give exactly one of file and given_proofs$"),
    ('[problems]\nmaterial = true\n', r"^\[problems\] material = true in .*: a run file cannot set it\nhint: give \[problems\] one of"),
    (GIVEN + "[search]\nrounds = 1\n", r"^\[problems\] given_proofs and \[search\] rounds do not go together: the generator writes no proofs"),
    (GIVEN + "[refinement]\niterations = 2\n", r"^\[problems\] given_proofs and \[refinement\] iterations do not go together"),
    (GIVEN + "[training.generator]\nsteps = 2\n", r"^\[problems\] given_proofs and \[training.generator\] steps do not go together"),
    (GIVEN + "[training.meta_verifier]\nsteps = 2\n", r"^\[training.meta_verifier\] needs analyses of known quality.*\nhint: set \[problems\] given_analyses$"),
    ('[problems]\ngiven_analyses = "x"\n[labeling]\nm = 0\n', r"^\[problems\] given_analyses and \[labeling\] m = 0 do not go together: .*\nhint: set \[labeling\] given_m$"),
    (GIVEN + '[labeling]\nby = "checker"\n', r'^\[labeling\] by = "checker": the problems have no checker.*\nhint: set \[problems\] checker to a domain'),
    (SMALLEST + '[labeling]\nby = "checker"\n[training.generator]\nsteps = 1\n', r'^\[labeling\] by = "checker" and \[training.generator\] do not go together: the checker only measures'),
    (SMALLEST + "[labeling]\nstop_early = false\n[search]\noverlap = true\n", r"^\[search\] overlap = true and \[labeling\] stop_early = false do not go together"),
    (SMALLEST + '[labeling]\nby = "checker"\n[search]\nrounds = 2\n', r'^\[labeling\] by = "checker" and \[search\] rounds = 2 do not go together: a search compares'),
    ('[problems]\nfile = "x"\nchecker = "nono"\n[labeling]\nby = "checker"\n', r"^unknown domain 'nono'"),
    ('seed_as = "a/b"\n' + SMALLEST, r"^seed_as in .*small.toml 'a/b' cannot be part of a key"),
    (SMALLEST + '[fine_tuning]\ndomain = "nano"\nsteps = 5\n', r"^\[fine_tuning\] and \[problems\] do not go together: a run does one of them"),
    ('[fine_tuning]\nstart = "nano-base"\n', r"^\[fine_tuning\] in .*: has 0 sources of answers\nhint: give exactly one of"),
    ('[fine_tuning]\ndomain = "nano"\n', r"^\[fine_tuning\] in .*: domain = 'nano' has demonstrations without end\nhint: set steps"),
    ('[fine_tuning]\nruns = ["a:judge"]\n', r"^\[fine_tuning\] in .*: runs has 'a:judge', and 'judge' is not a role\nhint: write NAME"),
    ('[fine_tuning]\ndomain = "nano"\nrunss = ["a"]\n', r"^unknown key \[fine_tuning\] runss in .*\nhint: known keys: batch, demonstrations, "),
    ("[problems]\ncount = 1\n", r"^\[problems\] has none of domain, file, given_proofs and given_analyses"),
    ('[problems]\ndomain = "nano"\ncount = 0\n', r"^\[problems\] count = 0 in .*: Input should be greater than or equal to 1"),
    ("[problems]\nfile = 5\n", r"^\[problems\] file = 5 in "),
    ('[problems]\ndomain = "nano"\nsplit = "dev"\n', r"^\[problems\] split = 'dev' in .*: Input should be 'train', 'validation' or 'test'"),
    ("", r"^problems is missing \(in .*small.toml\)\nhint: give \[problems\] one of domain, .*; `proofloop init`"),
    ('name = "a b"\n' + SMALLEST, r"^name in .*small.toml 'a b' cannot be part of a key\nhint: use 1 to 100"),
    ("name = 5\n" + SMALLEST, r"^name = 5 in .*: Input should be a valid string\nhint: write text in quotes$"),
    ("seed = -1\n" + SMALLEST, r"^seed = -1 in .*small.toml: Input should be greater than or equal to 0"),
    ("seed = 4294967296\n" + SMALLEST, r"^seed = 4294967296 in .*small.toml: Input should be less than or equal to 4294967295"),
    ("seed = \n", r"small.toml is not TOML: .*\nhint: `proofloop init`"),
    (b"\xff\xfe", r"small.toml is not TOML: .*\nhint: `proofloop init`"),
    ('file = "C:\\Users\\p.json"', r"small.toml is not TOML: .*\nhint: .* in single quotes"),
    ('file = "D:\\problems.json"', r"small.toml is not TOML: .*\nhint: .* in single quotes"),
    ("a = " + "[" * 50_000, "small.toml is not TOML: "),
    ("seed = " + "9" * 5_000, "small.toml is not TOML: Exceeds the limit"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_named_with_its_place_value_and_way_out(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"none.toml cannot be read: No such file or directory\nhint: give the path",
    ):
        load_runspec(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_runspec(tmp_path)


@pytest.mark.parametrize(
    ("more", "change"),
    [
        ("", None),
        ("[flow]\nverifier = 8\n", "[flow] verifier = 8, was unset"),
        ("[training.generator]\nsteps = 2\n", "[training.generator] steps = 2, was 0"),
        ('[engine]\nsettings = { b = [1], a.x = "y" }\n', "[engine.settings] b = [1], was unset"),
        (
            '[engine]\nsettings = { a.token = "s3cret" }\n',
            "[engine.settings.a] token = (withheld), was unset",
        ),
    ],
)
def test_the_first_key_in_which_two_run_files_differ_is_named(
    tmp_path: Path, more: str, change: str | None
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    begun, now = load(tmp_path, SMALLEST), load(moved, SMALLEST + more)
    difference = first_difference(now, begun, apart_from={"base": True})
    assert (difference and str(difference)) == change


def test_a_file_name_that_is_no_name_for_a_run_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'my run' cannot be part of a key"):
        load(tmp_path, SMALLEST, "my run.toml")


def test_a_role_has_the_settings_of_all_but_for_its_own(tmp_path: Path) -> None:
    roles = """
[engine]
kind = "openai"
[engine.settings]
base_url = "http://a/v1"
extra_body = { top_k = 5, prompt_cache_key = "a" }
seed_bits = 31
[engine.generator]
kind = "simulated"
[engine.verifier.settings]
endpoints = [{ base_url = "http://b/v1" }]
extra_body = { min_p = 0.1 }
[models]
verifier = "v"
meta_verifier = "m"
"""
    engine = load(tmp_path, SMALLEST + roles).engine
    assert engine.of("meta_verifier").settings == engine.settings
    assert engine.of("verifier").settings == {
        "endpoints": [{"base_url": "http://b/v1"}],
        "extra_body": {"min_p": 0.1},
        "seed_bits": 31,
    }
    assert (engine.of("generator").kind, engine.of("generator").settings) == ("simulated", {})
    assert engine.kinds == "openai, generator simulated"


def test_a_role_that_is_not_trained_may_have_an_engine_that_loads_no_versions(
    tmp_path: Path,
) -> None:
    text = TRAINS + "[engine.generator]\nkind = 'openai'\n[models]\ngenerator = 'g'\n"
    assert load(tmp_path, text).engine.of("generator").kind == "openai"


def test_an_engine_of_others_needs_every_model_named() -> None:
    fields = {
        "name": "r",
        "problems": {"domain": "nano"},
        "engine": {"kind": "openai"},
        "models": {"generator": "g"},
    }
    with pytest.raises(
        ConfigError,
        match=r"\[models\] verifier is missing: engine 'openai' has no default model",
    ):
        parse_runspec(fields, "a test")


@pytest.mark.parametrize(
    ("runs", "sources"),
    [
        (["a", "a:verifier", "b"], (("a", MODEL_ROLES), ("b", MODEL_ROLES))),
        (["a:meta_verifier", "a:generator"], (("a", ("generator", "meta_verifier")),)),
    ],
)
def test_a_run_that_is_named_twice_is_learned_once(
    runs: list[str], sources: tuple[object, ...]
) -> None:
    assert FineTuning.model_validate({"runs": runs}).sources == sources
