"""The curriculum file: its stages, and the errors of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.config.curriculum_file import CurriculumSpec, load_curriculum
from proofloop.curriculum.compose import everywhere, example_of, run_spec
from proofloop.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "examples" / "nano-iterate" / "curriculum.toml"


def test_the_example_is_a_curriculum():
    assert load_curriculum(EXAMPLE).name == "nano-iterate"


def test_the_stages_follow_the_method_and_ablations_stand_beside_what_they_ablate():
    spec = CurriculumSpec(name="c", ablations=("no-meta", "no-self"), measured=0)
    assert [stage.name for stage in spec.stages] == [
        *("0-cold_start", "1-verifier", "1-meta_verifier", "1-enhanced", "1-enhanced-no-meta"),
        *("1-generator", "1-generator-no-self", "1-label", "1-consolidate"),
        *("2-enhanced", "2-generator", "2-label", "2-consolidate"),
    ]


def test_a_wrong_key_is_named_with_what_is_known(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[enhanced]\nrefesh = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key \[enhanced\] refesh") as caught:
        load_curriculum(tmp_path / "c.toml")
    assert "refresh, refresh_steps" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = -1\n", r"^seed = -1 in .*c.toml: Input should be greater than or equal to 0"),
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


def test_a_stage_that_is_given_something_else_keeps_its_steps(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[verifier]\ngroups = 40\n[generator]\nbeta = 0.3\n")
    assert load_curriculum(tmp_path / "c.toml").stages == CurriculumSpec(name="c").stages


def test_an_enhanced_stage_has_groups_of_both_data_sets(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[enhanced]\ngroups = 12\n")
    with pytest.raises(ConfigError, match="meta_groups = 12 leaves none of groups = 12 for D_v"):
        load_curriculum(tmp_path / "c.toml")


def test_an_ablation_is_named_once(tmp_path: Path):
    (tmp_path / "c.toml").write_text('ablations = ["no-self", "no-meta", "no-self"]\n')
    with pytest.raises(ConfigError, match=r"^ablations = .* has a duplicate"):
        load_curriculum(tmp_path / "c.toml")


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


def test_an_adapter_does_not_begin_with_the_demonstrations_of_a_domain(tmp_path: Path):
    (tmp_path / "c.toml").write_text("[lora]\n")
    with pytest.raises(ConfigError, match=r"\[lora\] and the cold start on a domain's demonstr"):
        load_curriculum(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("[lora]\nrank = 4\n[cold_start]\nsteps = 0\n")
    spec = load_curriculum(tmp_path / "c.toml")
    assert example_of(spec, "verifier").lora == spec.lora
    assert run_spec(spec, "judging", everywhere("nano-base")).lora is None


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
            r"\[cold_start\] in .* has no demonstrations: only a domain brings its own",
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


def test_files_have_a_cold_start_where_it_names_demonstrations(tmp_path: Path):
    (tmp_path / "c.toml").write_text(FILES + '[cold_start]\ndemonstrations = "rows.jsonl"\n')
    first = load_curriculum(tmp_path / "c.toml").stages[0]
    assert (first.name, first.kind) == ("0-cold_start", "cold_start")


def test_a_cold_start_has_one_source_of_demonstrations(tmp_path: Path):
    both = '[cold_start]\ndemonstrations = "rows.jsonl"\nruns = ["a"]\n'
    (tmp_path / "c.toml").write_text(both)
    with pytest.raises(ConfigError, match="demonstrations and runs do not go together"):
        load_curriculum(tmp_path / "c.toml")
