"""Domains and prompt packs of other packages, found by their entry points."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from proofloop.cli import main
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.config.settings import Settings
from proofloop.errors import ConfigError
from proofloop.method.domains import (
    domain_names,
    find_domain,
    load_domain,
    need_checker,
    need_proof_finding,
)
from proofloop.method.domains.base import PLAIN_SAMPLE
from proofloop.method.prompts import find_pack, load_pack, pack_names
from proofloop.plugins import plugin_error
from proofloop.report.samples import read_samples
from proofloop.schema import keys
from proofloop.store import LocalStore, open_store, put_record
from tests.builders import PROOF, RUN, proof
from tests.unit.plugins.conftest import Install

DOMAIN = "[proofloop.domains]\nparity = parity_plugin:Parity\n"
PACK = "[proofloop.prompt_packs]\nparity-prompts = parity_plugin.prompts\n"


def run_spec() -> RunSpec:
    fields = {"name": RUN, "problems": {"domain": "parity", "count": 2}}
    return parse_runspec(fields, "run.toml")


def test_a_domain_of_another_package_poses_problems(install: Install) -> None:
    install(DOMAIN + PACK)
    assert domain_names() == ("nano", "nano-long", "parity")
    assert [each.question for each in problems_of(run_spec())] == ["Is 0 even?", "Is 1 even?"]


def test_a_domain_names_its_prompt_pack(install: Install) -> None:
    install(DOMAIN + PACK)
    assert run_spec().prompts == "parity-prompts"
    assert load_pack("parity-prompts").templates == load_pack("math").templates
    assert "parity-prompts" in pack_names()


def test_a_domain_inherits_a_sample_and_no_checks(install: Install) -> None:
    install(DOMAIN)
    domain = load_domain("parity")
    assert domain.sample("Is 0 even?") == PLAIN_SAMPLE
    with pytest.raises(ConfigError, match="domain 'parity' has no exact checker"):
        need_checker(domain)


def test_a_checker_that_cannot_tell_is_named() -> None:
    with pytest.raises(ConfigError, match="checker of domain 'nano' cannot check proofs of 'Is 0"):
        need_proof_finding(load_domain("nano"), "Is 0 even?", "Yes.")


def test_an_unknown_domain_may_be_in_a_package_that_is_missing() -> None:
    assert find_domain("parity") is None
    with pytest.raises(ConfigError) as caught:
        load_domain("parity")
    assert str(caught.value) == (
        "unknown domain 'parity'\nhint: use one of: nano, nano-long; or install the package that"
        " has it; or set problems.file"
    )


@pytest.mark.parametrize("target", ["parity_plugin.missing:Parity", "parity_plugin:Missing"])
def test_a_domain_that_cannot_be_imported_is_named_with_its_package(
    install: Install, target: str
) -> None:
    install(f"[proofloop.domains]\nparity = {target}\n")
    with pytest.raises(ConfigError, match="domain 'parity' cannot be loaded: ") as caught:
        load_domain("parity")
    assert caught.value.hint == (
        f"correct or reinstall the package parity-plugin; its entry point names {target}"
    )


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("unfinished", "Unfinished", "domain 'unfinished' cannot be made: Can't instantiate"),
        ("text", "MODULE_NAME", "domain 'text' cannot be made: 'str' object is not callable"),
        ("even", "Parity", "domain 'even' calls itself 'parity'"),
    ],
)
def test_a_domain_of_a_wrong_form_is_named(
    install: Install, name: str, target: str, problem: str
) -> None:
    install(f"[proofloop.domains]\n{name} = parity_plugin:{target}\n")
    with pytest.raises(ConfigError) as caught:
        load_domain(name)
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("options", "shows_traceback"), [([], False), (["-v"], True)], ids=["plain", "verbose"]
)
def test_a_bug_of_another_package_is_one_line_that_names_it(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    shows_traceback: bool,
) -> None:
    install("[proofloop.domains]\nbroken = parity_plugin:Broken\n")
    monkeypatch.setattr(
        "sys.argv", ["proofloop", *options, "domains", "pose", "--domain", "broken"]
    )
    with pytest.raises(SystemExit, match="1"):
        main()
    printed = capsys.readouterr().err
    assert re.search(
        "^error: package parity-plugin failed in parity_plugin, line \\d+: NameError: name"
        " 'undefined' is not defined \\(hint: correct the package",
        printed,
        re.MULTILINE,
    )
    assert ("Traceback" in printed) == shows_traceback


def test_doctor_names_the_package_of_an_engine_with_a_bug(
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("[proofloop.engines]\ncareless = parity_plugin:ENGINE\n")
    file = tmp_path / "run.toml"
    file.write_text('name = "r"\nproblems.domain = "nano"\nengine.kind = "careless"\n')
    words = ["proofloop", "doctor", str(file), "--store", str(tmp_path / "store"), "--json"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="1"):
        main()
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["what"], last["state"]) == ("engine", "broken")
    assert last["found"].startswith("package parity-plugin failed in parity_plugin, line ")


def test_a_bug_of_proofloop_is_no_error_of_a_package(install: Install) -> None:
    install(DOMAIN)
    try:
        raise KeyError("ours")
    except KeyError as error:
        assert plugin_error(error) is None


def test_an_installed_pack_without_its_file_is_named(install: Install) -> None:
    install("[proofloop.prompt_packs]\nempty = parity_plugin.empty\n")
    with pytest.raises(ConfigError) as caught:
        load_pack("empty")
    assert caught.value.problem == "prompt pack 'empty' is installed without a pack.toml"


def test_a_pack_that_is_not_installed_is_no_folder() -> None:
    assert find_pack("parity-prompts") is None


def test_a_report_lacks_the_findings_of_a_domain_that_is_not_installed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    written = put_record(store, keys.proof(RUN, PROOF), proof())
    (sample,) = read_samples(store, run_spec(), [written.id])
    assert (sample.finding, sample.solution.shown) == (None, written.solution)


def test_a_store_of_another_package_is_named_by_its_scheme(
    install: Install, tmp_path: Path
) -> None:
    install("[proofloop.stores]\ndisk = parity_plugin:open_url\n")
    store = open_store(Settings(store_url=SecretStr(f"disk://{tmp_path / 'data'}")))
    assert store.put_if_absent("a/k", b"x")
    assert (tmp_path / "data" / "a" / "k").exists()


@pytest.mark.parametrize(
    ("url", "problem"),
    [("tape://x:secret@y", "no installed package has a store for tape://$"), ("secret", "scheme")],
)
def test_a_url_without_a_store_keeps_its_secrets(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(Settings(store_url=SecretStr(url)))
    assert re.search(problem, caught.value.problem)
    assert "secret" not in str(caught.value)
