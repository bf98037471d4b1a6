"""Numbers of configurations are finite and bounded, on the command line and in recipes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pydantic
import pytest
from annotated_types import Ge, Gt, Le, Lt
from command_line import QuickProgram
from pydantic import BaseModel

from rlt_data.bounds import parse_memory
from rlt_data.engines.base import EngineOptions
from rlt_data.engines.openai.options import ServerOptions
from rlt_data.errors import UsageError
from rlt_data.recipe.load import load_recipe
from rlt_data.recipe.schema import TinyModels, build_recipe_model
from rlt_data.recipe.training import load_training
from rlt_data.recipe.training_schema import RECIPES
from rlt_data.sources.procedural.explained_arithmetic import ArithmeticOptions
from rlt_data.stages.rank.policies import parse_policy
from rlt_data.stages.registry import STAGES
from rlt_data.stages.runtime.stage import load_stage
from rlt_data.training.rl.config import GrpoConfig
from rlt_data.training.sft.config import SftConfig
from rlt_data.validation import expand_models, expand_union, list_rules

CONFIGS: list[type[BaseModel]] = [
    *(load_stage(declaration).config for declaration in STAGES),
    *RECIPES.values(),
    build_recipe_model(),
    TinyModels,
    GrpoConfig,
    SftConfig,
    EngineOptions,
    ServerOptions,
    ArithmeticOptions,
]
ABSURD = [math.inf, -math.inf, math.nan, 1e308, -1e308]


def list_numbers(config: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any, list[Any]]]:
    """List the fields that are numbers, at any depth, with the bounds of each."""
    for name, field in config.model_fields.items():
        path = f"{above or config.__name__}.{name}"
        for annotation in [field.annotation, *map(get_last_argument, expand_union(field.annotation))]:
            for branch in expand_union(annotation):
                if branch in (int, float):
                    rules = list_rules(field) or [
                        rule for meta in getattr(annotation, "__metadata__", ()) for rule in meta.metadata
                    ]
                    yield path, branch, rules
            for model in expand_models(annotation):
                yield from list_numbers(model, path)


def get_last_argument(annotation: Any) -> Any:
    """Return the type of the values of a collection; None for any other type."""
    if get_origin(annotation) in (None, Annotated):
        return None
    arguments = [argument for argument in get_args(annotation) if argument is not ...]
    return arguments[-1] if arguments else None


NUMBERS = {path: (kind, rules) for config in CONFIGS for path, kind, rules in list_numbers(config)}


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_has_bounds_on_both_sides(path: str) -> None:
    _, rules = NUMBERS[path]
    assert any(isinstance(rule, Ge | Gt) for rule in rules), "its smallest value"
    assert any(isinstance(rule, Le | Lt) for rule in rules), "its largest value"


def test_the_numbers_are_found() -> None:
    for path in (
        "ScoreConfig.reward.lambda_kl",
        "RankConfig.limit",
        "TeacherRecipe.fresh.student_styles",
        "TeacherRecipe.fresh.shape.layers",
        "TeacherRecipe.grpo.reward.alpha",
        "Recipe.generate.temperature",
        "ServerOptions.timeout",
    ):
        assert path in NUMBERS


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--lambda inf", "from 0 to 1,000,000"),
        ("--lambda nan", "from 0 to 1,000,000"),
        ("--lambda 1e308", "from 0 to 1,000,000"),
        ("--alpha inf", "from 0 to 1,000,000"),
        ("--penalty=-inf", "from -1,000,000 to 0"),
        ("--clip-kl 0", "from 1e-06 to 1,000,000"),
        ("--clip-kl 1e-320", "from 1e-06 to 1,000,000"),
        ("--verify-processes 100000", "from 1 to 1,024"),
        ("--clip-logprob=-inf", "at least -1,000,000 and below 0"),
        ("--verify-seconds inf", "above 0 and at most 864,000"),
        (f"--limit 1{'0' * 26}", "from 1 to 1,000,000,000,000"),
        (f"--limit {'9' * 4000}", "(4,002 characters)"),
        ("--limit 0", "from 1 to 1,000,000,000,000"),
        ("--limit 1e26", "an integer from 1 to 1,000,000,000,000, found '1e26'"),
        ("--limit inf", "an integer from 1 to 1,000,000,000,000"),
        (f"--limit {'9' * 5000}", "an integer from 1 to 1,000,000,000,000"),
        ("--alpha much", "a number from 0 to 1,000,000, found 'much'"),
    ],
)
def test_an_option_out_of_range_is_refused_with_the_range(
    quick: QuickProgram, option: str, allowed: str
) -> None:
    message = quick.fail(2, "rank", "--lake", "lake", *option.split(" "))
    assert allowed in message
    assert option.replace("=", " ").split(" ")[0] in message


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("sql --memory inf", "a number from 0.1 to 1,000,000, found 'inf'"),
        ("sql --memory nan", "a number from 0.1 to 1,000,000"),
        ("sql --memory 0", "a number from 0.1 to 1,000,000"),
        ("sql --spill 1e308", "a number from 0 to 1,000,000"),
        ("sql --timeout=-inf", "a number from 0 to 1,000,000"),
        ("sql --rows 1e26", "an integer from 0 to 1,000,000,000,000, found '1e26'"),
        (f"log --limit 1{'0' * 26}", "an integer from 0 to 1,000,000,000,000"),
        (f"log --limit {'9' * 5000}", "an integer from 0 to 1,000,000,000,000"),
        ("vacuum --retention-hours 99999999999999", "an integer from 0 to 1,000,000"),
        ("vacuum --pinned-hours inf", "an integer from 0 to 1,000,000"),
        ("train-teacher x --processes 1e9", "an integer from 1 to 1,000,000"),
        ("grade --processes 100000", "from 1 to 1,024"),
        ("evaluate --model x --task y --processes 100000", "from 1 to 1,024"),
        ("score --student x --memory 1e400GiB", "from 1MiB to 1024TiB"),
        (f"score --student x --memory {'9' * 400}GiB", "from 1MiB to 1024TiB"),
        ("score --student x --memory 99999999TiB", "from 1MiB to 1024TiB"),
        ("score --student x --memory=-1GiB", "from 1MiB to 1024TiB"),
    ],
)
def test_every_command_names_the_option_and_its_range(
    quick: QuickProgram, command: str, allowed: str
) -> None:
    message = " ".join(quick.fail(2, *command.split(" ")).split())
    assert allowed in message
    assert f"--{command.rpartition('--')[2].replace('=', ' ').split(' ')[0]}" in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("500MB", 500_000_000),
        ("1.5 gib", 3 * 2**29),
        ("4096000", 4096000),
        ("2m", 2_000_000),
    ],
)
def test_a_size_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "1 parsec", "1KiB", "infGiB", "nan", "9" * 400])
def test_text_that_is_not_a_size_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1MiB to 1024TiB"):
        parse_memory(text)


@pytest.mark.parametrize("temperature", ["inf", "nan", "1e-30", "1e308", "-1"])
def test_an_absurd_temperature_is_refused(quick: QuickProgram, temperature: str) -> None:
    message = quick.fail(2, "generate", "--teacher", "x", f"--temperature={temperature}", "--lake", "lake")
    assert "100" in message
    assert "--temperature" in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[rank.reward]\nlambda_kl = inf", "rank.0.reward.lambda_kl"),
        ("[rank.reward]\nalpha = nan", "rank.0.reward.alpha"),
        ("[rank]\nlimit = 100000000000000000000000000", "rank.0.limit"),
        ("[generate]\nteacher = 'x'\ntemperature = 1e-30", "generate.0.temperature"),
        (
            "[generate]\nteacher = 'x'\n[generate.engine_options]\na = [1, {b = inf}]",
            "generate.0.engine_options",
        ),
    ],
)
def test_a_recipe_with_a_number_out_of_range_is_refused(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe([path], [])
    assert key.rpartition(".")[2] in raised.value.what
    assert f"{path}:" in str(raised.value.where)


@pytest.mark.parametrize(
    "setting",
    [
        "grpo.reward.lambda_kl=inf",
        "grpo.temperature=1e-30",
        "grpo.student_temperature=inf",
        "grpo.sync_limit=nan",
        "grpo.trainer.learning_rate=inf",
        "grpo.lora.lora_alpha=1e300",
        "sft.trainer.learning_rate=nan",
        "sft.limit=100000000000000000000000000",
        "seed=4294967296",
        "fresh.shape.layers=1000000000",
        "fresh.learning_rate=inf",
    ],
)
def test_a_training_recipe_with_a_number_out_of_range_is_refused(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("output = 'out'\nteacher = 'fresh'\nstudents = ['fresh']\n[fresh]\n[sft]\n[grpo]\n")
    load_training([path], [], role="teacher")
    with pytest.raises(UsageError) as raised:
        load_training([path], [setting], role="teacher")
    assert setting.partition("=")[0].rpartition(".")[0] in raised.value.what


@pytest.mark.parametrize("number", ABSURD)
@pytest.mark.parametrize("config", [ServerOptions, EngineOptions, ArithmeticOptions])
def test_no_float_of_a_connection_or_generator_is_absurd(config: type[BaseModel], number: float) -> None:
    for name, field in config.model_fields.items():
        if float in expand_union(field.annotation):
            with pytest.raises(pydantic.ValidationError):
                config.model_validate({"base_url": "http://localhost", name: number})


@pytest.mark.parametrize(
    "text",
    ["threshold(inf)", "threshold(nan)", "threshold(-1e308)", f"best-of-n({10**26})", "random(1, 1e9)"],
)
def test_a_policy_with_an_absurd_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_policy(text)
