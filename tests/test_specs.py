"""The models in specs/: their runner finds what it must find, and they name what exists in the code."""

import re
import shutil
from pathlib import Path

import pytest

from specs.__main__ import search
from specs.cases import CASES, Case
from tests.chaos import mutations

ROOT = Path(__file__).parent.parent
MODELS = {path.stem: path.read_text() for path in (ROOT / "specs").glob("*.pml")}
OF_POSTGRESQL = re.compile(r"pg_\w+|nextval")
needs_spin = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("cc")), reason="Spin or a C compiler is missing"
)


@needs_spin
@pytest.mark.parametrize(("wrong", "is_broken"), [("", False), ("GAP_AT_ONCE", True)])
def test_search_finds_the_broken_promise(wrong: str, is_broken: bool) -> None:
    """A model keeps its promise, and a wrong variant breaks it."""
    result = search(Case("gap", "no_silent_loss", {"WRITERS": 2}, wrong))
    assert (result.is_broken, result.is_expected, result.trouble) == (is_broken, True, "")
    assert result.states > 0


@needs_spin
def test_variant_that_breaks_nothing_is_not_expected() -> None:
    """A wrong variant that keeps the promise fails the run: here a macro that no model knows."""
    result = search(Case("gap", "no_silent_loss", {"WRITERS": 2}, "NO_SUCH_MACRO"))
    assert not result.is_expected
    assert result.outcome == "holds, NOT EXPECTED"


def test_every_macro_of_a_model_is_searched() -> None:
    """No variant is left out, and no case names a macro that its model does not have."""
    for model in {case.model for case in CASES}:
        bounds = set(re.findall(r"#ifndef (\w+)\n#define \1 ", MODELS[model]))
        macros = set(re.findall(r"#ifn?def (\w+)|defined\((\w+)\)", MODELS[model]))
        wrong = {first or second for first, second in macros} - bounds
        of_cases = [case for case in CASES if case.model == model]
        ways = {name for case in of_cases for name in case.bounds} - bounds
        assert ways <= wrong
        assert {case.wrong for case in of_cases if case.wrong} == wrong - ways


def test_every_case_names_a_promise_of_its_model() -> None:
    """Spin would search nothing for an unknown name."""
    for case in CASES:
        assert f"ltl {case.promise} " in MODELS[case.model]


def test_every_mutation_of_the_chaos_run_is_a_variant() -> None:
    """What the chaos run must detect, the models must detect too."""
    wrong = {case.wrong.lower() for case in CASES}
    found = {
        name for name, value in vars(mutations).items() if callable(value) and value.__module__ == mutations.__name__
    }
    assert {name for name in found if not name.startswith("_")} <= wrong


def test_functions_named_in_the_models_exist() -> None:
    """A step names its function; a renamed function must be renamed there, too."""
    sources = [*(ROOT / "hc_signals").rglob("*.py"), *(ROOT / "migrations_sql").glob("*.sql")]
    code = "\n".join(path.read_text() for path in sources)
    for model, text in MODELS.items():
        for comment in re.findall(r"/\*(.*?)\*/", text, re.DOTALL):
            for path in re.findall(r"hc_signals/[\w/]+\.py", comment):
                assert (ROOT / path).exists(), (model, path)
            for name in re.findall(r"(\w+)\(\)", comment):
                is_there = re.search(rf"def {name}\(|FUNCTION public\.{name}\(", code) or OF_POSTGRESQL.fullmatch(name)
                assert is_there, (model, name)
