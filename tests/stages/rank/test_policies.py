from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt_data.errors import UsageError
from rlt_data.stages.rank.policies import Policy, parse_policy, rank_traces

POLICIES = [
    "all",
    "best-of-n(2)",
    "top-quantile(0.4)",
    "top-quantile(0.4, corpus)",
    "threshold(-1)",
    "random(2, seed=3)",
]
SCHEMA = {"student": pl.String, "question_id": pl.String, "trace_id": pl.String, "reward": pl.Float64}

# Few distinct rewards, so that ties are common.
rewards = st.one_of(st.sampled_from([-2.0, -1.0, 0.0]), st.floats(-9, 0, allow_nan=False))


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    rows = [
        (student, f"q{question}", f"q{question}t{index}", draw(rewards))
        for student in ("a", "b")[: draw(st.integers(1, 2))]
        for question, size in enumerate(sizes)
        for index in range(size)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def select(frame: pl.DataFrame, policy: str) -> set[tuple[str, str]]:
    ranked = rank_traces(frame, parse_policy(policy)).filter("selected")
    return set(ranked.select("student", "trace_id").iter_rows())


@settings(max_examples=40)
@given(frame=frames(), policy=st.sampled_from(POLICIES), seed=st.integers(0, 9))
def test_the_order_of_the_rows_does_not_matter(frame: pl.DataFrame, policy: str, seed: int) -> None:
    shuffled = frame.sample(fraction=1, shuffle=True, seed=seed)
    by = ["student", "question_id", "rank"]
    first = rank_traces(frame, parse_policy(policy)).sort(by)
    second = rank_traces(shuffled, parse_policy(policy)).sort(by)
    # The mean and deviation of floats may differ in the last digit with the order of addition.
    exact = [name for name in first.columns if name not in ("group_mean", "group_std")]
    assert first.select(exact).equals(second.select(exact))
    for name in ("group_mean", "group_std"):
        assert first[name].to_list() == pytest.approx(second[name].to_list(), abs=1e-9)


@settings(max_examples=40)
@given(frame=frames(), policy=st.sampled_from(POLICIES))
def test_ranks_are_one_to_n_within_each_question_and_no_trace_is_lost(
    frame: pl.DataFrame, policy: str
) -> None:
    ranked = rank_traces(frame, parse_policy(policy))
    assert set(ranked.select(frame.columns).iter_rows()) == set(frame.iter_rows())
    for _, group in ranked.group_by("student", "question_id"):
        assert sorted(group["rank"]) == list(range(1, group.height + 1))
        assert group["group_size"].to_list() == [group.height] * group.height
        rewards = group["reward"].to_list()
        mean = sum(rewards) / len(rewards)
        assert group["group_mean"][0] == pytest.approx(mean)
        assert group["group_std"][0] == pytest.approx(
            math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
        )
        assert group["group_spread"][0] == pytest.approx(max(rewards) - min(rewards))


@settings(max_examples=40)
@given(frame=frames())
def test_better_rewards_rank_first_and_ties_go_by_trace_id(frame: pl.DataFrame) -> None:
    for _, group in rank_traces(frame, parse_policy("all")).group_by("student", "question_id"):
        ordered = group.sort("rank")
        expected = sorted(group.select("reward", "trace_id").iter_rows(), key=lambda row: (-row[0], row[1]))
        assert list(ordered.select("reward", "trace_id").iter_rows()) == expected


@settings(max_examples=40)
@given(frame=frames(), n=st.integers(1, 6))
def test_best_of_n_is_nested_in_best_of_n_plus_one(frame: pl.DataFrame, n: int) -> None:
    for kind in ("best-of-n({})", "random({})"):
        assert select(frame, kind.format(n)) <= select(frame, kind.format(n + 1))
    assert select(frame, "best-of-n(6)") == select(frame, "all")


@settings(max_examples=40)
@given(
    frame=frames(),
    share=st.floats(0.01, 1),
    more=st.floats(0.01, 1),
    scope=st.sampled_from(["question", "corpus"]),
)
def test_a_quantile_is_nested_in_a_larger_one(
    frame: pl.DataFrame, share: float, more: float, scope: str
) -> None:
    small, large = sorted([share, more])
    assert select(frame, f"top-quantile({small}, {scope})") <= select(
        frame, f"top-quantile({large}, {scope})"
    )


@settings(max_examples=40)
@given(frame=frames(), share=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_a_quantile_keeps_its_share_rounded_up(frame: pl.DataFrame, share: float) -> None:
    for _, group in frame.group_by("student", "question_id"):
        assert len(select(group, f"top-quantile({share})")) == math.ceil(round(share * group.height, 9))
    for _, mine in frame.group_by("student"):
        kept = select(mine, f"top-quantile({share}, corpus)")
        assert len(kept) == math.ceil(round(share * mine.height, 9))
        chosen = [r for s, _, t, r in mine.iter_rows() if (s, t) in kept]
        left = [r for s, _, t, r in mine.iter_rows() if (s, t) not in kept]
        assert not left or min(chosen) >= max(left)


def test_a_tenth_of_thirty_is_three() -> None:
    frame = pl.DataFrame([("a", "q", f"t{i:02d}", float(i)) for i in range(30)], schema=SCHEMA, orient="row")
    assert len(select(frame, "top-quantile(0.1)")) == 3


@settings(max_examples=40)
@given(frame=frames(), value=rewards)
def test_a_threshold_keeps_what_reaches_it(frame: pl.DataFrame, value: float) -> None:
    expected = {(s, t) for s, _, t, r in frame.iter_rows() if r >= value}
    assert select(frame, f"threshold({value!r})") == expected


def test_random_needs_no_rewards_and_depends_on_the_seed() -> None:
    rows = [("a", f"q{q}", f"q{q}t{t}", None) for q in range(20) for t in range(8)]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    rewarded = frame.with_columns(pl.Series("reward", [float(i) for i in range(len(rows))]))
    assert select(frame, "random(1)") == select(rewarded, "random(1)")
    assert select(frame, "random(1)") != select(frame, "random(1, seed=1)")
    chosen = [int(trace.split("t")[1]) for _, trace in select(frame, "random(1)")]
    assert len(chosen) == 20
    assert len(set(chosen)) > 3, "the draws must not follow the order of the traces"


@pytest.mark.parametrize(
    ("text", "policy", "shown"),
    [
        ("best-of-n(4)", Policy("best-of-n", 4), "best-of-n(4)"),
        (" best-of-n ( 4 ) ", Policy("best-of-n", 4), "best-of-n(4)"),
        ("top-quantile(0.25)", Policy("top-quantile", 0.25), "top-quantile(0.25)"),
        (
            "top-quantile(0.25, corpus)",
            Policy("top-quantile", 0.25, corpus=True),
            "top-quantile(0.25, corpus)",
        ),
        ("threshold(-5)", Policy("threshold", -5.0), "threshold(-5)"),
        ("random(2)", Policy("random", 2, seed=0), "random(2, seed=0)"),
        ("random(2, seed=7)", Policy("random", 2, seed=7), "random(2, seed=7)"),
        ("all", Policy("all"), "all"),
    ],
)
def test_policies_are_read_and_written(text: str, policy: Policy, shown: str) -> None:
    assert parse_policy(text) == policy
    assert str(policy) == shown
    assert parse_policy(shown) == policy


@pytest.mark.parametrize(
    "text",
    ["best", "best-of-n", "best-of-n(0)", "best-of-n(x)", "best-of-n(1, 2)", "top-quantile(0)",
     "top-quantile(1.5)", "top-quantile(0.5, student)", "threshold()", "threshold(nan)", "random(1, 2, 3)",
     "all(3)", "",
     "best-of-n(1"],
)  # fmt: skip
def test_an_invalid_policy_is_refused_with_the_valid_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_policy(text)
    assert "best-of-n(1)" in str(caught.value.remedy)


@given(
    policy=st.one_of(
        st.builds(Policy, st.just("threshold"), st.floats(-1e12, 1e12)),
        st.builds(Policy, st.just("top-quantile"), st.floats(0, 1, exclude_min=True), corpus=st.booleans()),
    )
)
def test_a_policy_is_written_with_every_digit(policy: Policy) -> None:
    assert parse_policy(str(policy)) == policy
