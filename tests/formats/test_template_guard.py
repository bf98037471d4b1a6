"""A chat template that would loop for ever or fill the memory is refused by name, and never rendered here."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from rlt_data.errors import ModelError
from rlt_data.formats import check_template, load_built_in, render_student_prompt
from rlt_data.formats.template_guard import GUARD, TemplateGuard

MESSAGES = [{"role": "user", "content": "hello"}]
DATE = datetime(2024, 7, 26)
WHOLE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TEMPLATES = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "5 s of processor time",
    "{% set x = 'x' * 10**9 %}": "512 MiB of memory",
    "{{ ('x' * 10**9)[:3] }}": "512 MiB of memory",
    "{{ messages[0].content * 10**8 }}": r"512 MiB of memory|a million characters",
    "{{ messages[0].content * 10**6 }}": "a million characters",
    "{{ [1, 2, 3] | random }}": "draws random numbers",
    "{% if lipsum() | length is odd %}{% endif %}": "draws random numbers",
}


@pytest.mark.parametrize("attack", TEMPLATES)
def test_a_template_beyond_its_limits_is_refused_by_name(
    make_tokenizer: Callable[..., Any], attack: str
) -> None:
    tokenizer = make_tokenizer(attack + WHOLE)
    used = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ModelError, match=TEMPLATES[attack]) as caught:
        check_template(load_built_in("stratos"), tokenizer, "student", name="m")
    assert "chat template" in str(caught.value.where)
    with pytest.raises(ModelError, match=TEMPLATES[attack]):
        render_student_prompt(load_built_in("stratos"), tokenizer, "q")
    # It was not rendered in this process, whose own limits are far above.
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - used.ru_utime < 4.0
    assert (after.ru_maxrss - used.ru_maxrss) < 256 << 10


def test_an_attack_in_one_kind_of_rendering_alone_is_found(make_tokenizer: Callable[..., Any]) -> None:
    attack = "{% if add_generation_prompt %}{{ ('x' * 10**9)[:3] }}{% endif %}"
    tokenizer = make_tokenizer(WHOLE + attack)
    render_student_prompt(load_built_in("stratos"), tokenizer, "q")
    with pytest.raises(ModelError, match="of memory"):
        check_template(load_built_in("stratos"), tokenizer, "student")


def test_renderings_go_on_after_a_template_that_ended_the_child() -> None:
    guard = TemplateGuard()
    try:
        loop = next(iter(TEMPLATES))
        assert "processor time" in str(guard.find_problem(loop, MESSAGES, {}, DATE))
        assert guard.find_problem(WHOLE, MESSAGES, {}, DATE) is None
        # Once tried, a rendering costs no process.
        guard.close()
        assert "processor time" in str(guard.find_problem(loop, MESSAGES, {}, DATE))
        assert guard._child is None
    finally:
        guard.close()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%d %b %Y') }}{{ messages | tojson(indent=2) }}{{ eos_token }}",
        "{% for",
        "{{ 1 // 0 }}",
        "{{ '\ud800' }}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    ],
)
def test_other_templates_pass_or_fail_as_they_do_here(template: str) -> None:
    assert GUARD.find_problem(template, MESSAGES, {"eos_token": "</s>"}, DATE) is None


def test_a_template_that_raises_anything_is_an_error_that_names_it(
    make_tokenizer: Callable[..., Any],
) -> None:
    for template in ("{{ 1 // 0 }}", "{{ " + "(" * 5000 + ")" * 5000 + " }}"):
        with pytest.raises(ModelError, match="the chat template fails"):
            check_template(load_built_in("stratos"), make_tokenizer(template), "student")


def test_after_a_fork_each_process_has_a_child_of_its_own() -> None:
    guard = TemplateGuard()
    try:
        assert guard.find_problem(WHOLE, MESSAGES, {}, DATE) is None
        child = guard._child
        guard._owner = os.getpid() + 1
        assert guard.find_problem(WHOLE + " ", MESSAGES, {}, DATE) is None
        assert guard._child is not child
        assert child is not None
        assert child.poll() is None
        child.kill()
        child.communicate()
    finally:
        guard.close()
