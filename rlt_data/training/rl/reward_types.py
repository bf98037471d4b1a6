"""Types of `grpo.reward`: which questions each can use, the prompt, the end of a completion, the function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from rlt_data.formats import ConversationFormat, Role, render_student_prompt, render_teacher_prompt
from rlt_data.tasks.answers import extract_answer
from rlt_data.training.rl.config import AnyGrpoConfig, CorrectnessSettings, GrpoConfig, StudentGrpoConfig

if TYPE_CHECKING:
    from rlt_data.reward.backends.base import LogprobBackend
    from rlt_data.reward.scoring.scoring_model import ScoringModel

Notify = Callable[[str], None]


class RewardType(Protocol):
    """One type of reward.

    To add one: a class here and a case in `find_reward_type`, and its reward function in
    `training/rewards/`, in a file of the type's name. `role` is the role whose prompt the model completes.
    """

    role: Role

    def find_flaw(self, solution: str, answer: str | None) -> tuple[str, str] | None:
        """Return reason and detail for a question that cannot be rewarded; None for one that can."""

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: str, solution: str) -> str:
        """Render the prompt that the trained model completes."""

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return the text that ends a completion beside the model's end tokens; None where there is none."""

    def build(
        self, format: ConversationFormat, tokenizer: Any, stack: ExitStack, notify: Notify | None
    ) -> Any:
        """Build the reward function.

        `tokenizer` is the policy's, `stack` closes what the function opens, and `notify` gets a sentence
        whenever a server is waited for.
        """


class RltType:
    """The students' understanding of an explanation: the prompt holds question and solution."""

    role: Role = "teacher"

    def __init__(self, config: GrpoConfig) -> None:
        self.config = config

    def find_flaw(self, solution: str, answer: str | None) -> tuple[str, str] | None:
        """Accept every question."""
        return None

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: str, solution: str) -> str:
        """Render the teacher's prompt."""
        return render_teacher_prompt(format, tokenizer, question, solution).text

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return the tag that closes an explanation."""
        return format.teacher.close

    def build(
        self, format: ConversationFormat, tokenizer: Any, stack: ExitStack, notify: Notify | None
    ) -> Any:
        """Build the reward with its students loaded, or behind their server."""
        from rlt_data.training.rewards.rlt import RltReward

        config = self.config
        return RltReward(
            [_open_student(name, config, notify) for name in config.students],
            policy_tokenizer=tokenizer,
            format=format,
            settings=config.reward.get_settings(),
            teacher_temperature=config.teacher_temperature,
            sampling_temperature=config.temperature,
            teacher_logprobs=config.teacher_logprobs,
            combine=config.reward.combine,
            pack_tokens=config.pack_tokens,
        )


class CorrectnessType:
    """The correctness of the model's own answer: the prompt holds the question only."""

    role: Role = "student"

    def __init__(self, settings: CorrectnessSettings) -> None:
        self.settings = settings

    def find_flaw(self, solution: str, answer: str | None) -> tuple[str, str] | None:
        """Reject a question without a final answer."""
        if answer is None and extract_answer(solution) is None:
            return "no_answer", "the solution states no final answer to compare with"
        return None

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: str, solution: str) -> str:
        """Render the student's prompt."""
        return render_student_prompt(format, tokenizer, question).text

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return None: only end tokens end an answer."""
        return None

    def build(
        self, format: ConversationFormat, tokenizer: Any, stack: ExitStack, notify: Notify | None
    ) -> Any:
        """Build the reward with its verifier processes."""
        from rlt_data.training.rewards.correctness import CorrectnessReward

        return stack.enter_context(CorrectnessReward(format=format, policy_tokenizer=tokenizer))


def find_reward_type(config: AnyGrpoConfig) -> RewardType:
    """Return the reward type of a training."""
    if isinstance(config, StudentGrpoConfig):
        return CorrectnessType(config.reward)
    match config.reward.type:
        case "rlt":
            return RltType(config)
        case "correctness":
            return CorrectnessType(config.reward.get_correctness())
        case never:
            assert_never(never)


def build_reward(
    config: AnyGrpoConfig,
    format: ConversationFormat,
    tokenizer: Any,
    stack: ExitStack,
    *,
    notify: Notify | None = None,
) -> Any:
    """Build the reward function of a training, shuffled where `grpo.reward.shuffle` is set."""
    from rlt_data.training.rewards.shuffled import ShuffledReward

    reward = find_reward_type(config).build(format, tokenizer, stack, notify)
    shuffle = isinstance(config, GrpoConfig) and config.reward.shuffle
    return ShuffledReward(reward, seed=config.seed) if shuffle else reward


def _open_student(name: str, config: GrpoConfig, notify: Notify | None) -> ScoringModel | LogprobBackend:
    from rlt_data.training.rewards.students import load_student, open_served_student

    if config.student_server:
        return open_served_student(name, config.student_temperature, config.student_server, notify=notify)
    return load_student(
        name,
        config.student_temperature,
        dtype=config.student_dtype,
        device=config.student_device,
        quantization=config.student_quantization,
    )
