"""Types of `grpo.reward`: which questions each can use, the prompt, the end of a completion, the function."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, assert_never

from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat, Role, render_student_prompt, render_teacher_prompt
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.countdown import read_puzzle
from rlt_data.tasks.definition import load_task
from rlt_data.tasks.grading.opening import GRADERS, open_graders
from rlt_data.tasks.prompts import write_prompt
from rlt_data.tasks.questions import TaskQuestion
from rlt_data.training.rl.config import AnyGrpoConfig, CorrectnessSettings, GrpoConfig, StudentGrpoConfig

if TYPE_CHECKING:
    from rlt_data.reward.backends.base import LogprobBackend
    from rlt_data.reward.scoring.scoring_model import ScoringModel

Notify = Callable[[str], None]


class LakeQuestion(NamedTuple):
    """A row of `questions`; `metadata` is a JSON object."""

    question_id: str
    question: str
    solution: str
    answer: str | None
    metadata: str | None


# Questions of the lake have no options apart, and programs that a policy writes are not run in training.
LAKE_GRADERS = tuple(name for name in GRADERS if name not in ("choice", "code"))


class RewardType(Protocol):
    """One type of reward.

    To add one: a class here and a case in `find_reward_type`, and its reward function in
    `training/rewards/`, in a file of the type's name. `role` is the role whose prompt the model completes.
    """

    role: Role

    def find_flaw(self, question: LakeQuestion) -> tuple[str, str] | None:
        """Return reason and detail for a question that cannot be rewarded; None for one that can."""

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: LakeQuestion) -> str:
        """Render the prompt that the trained model completes."""

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return the text that ends a completion beside the model's end tokens; None where there is none."""

    def identify(self, format: ConversationFormat) -> dict[str, str]:
        """Return what determines prompts and rewards beside the configuration and the format."""

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

    def find_flaw(self, question: LakeQuestion) -> tuple[str, str] | None:
        """Accept every question."""
        return None

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: LakeQuestion) -> str:
        """Render the teacher's prompt."""
        return render_teacher_prompt(format, tokenizer, question.question, question.solution).text

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return the tag that closes an explanation."""
        return format.teacher.close

    def identify(self, format: ConversationFormat) -> dict[str, str]:
        """Return nothing: the configuration determines all of it."""
        return {}

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
    """The correctness of the model's own answer: the prompt holds the question only.

    With a task the prompt is the one of its evaluation. Raises `UsageError` for a grader that cannot grade
    questions of the lake.
    """

    role: Role = "student"

    def __init__(self, settings: CorrectnessSettings, *, task: str | None = None, section: str) -> None:
        self.settings = settings
        self.task = None if task is None else load_task(task).task
        self.grader = settings.grader or (self.task.grader if self.task is not None else "math")
        if self.grader not in LAKE_GRADERS:
            raise UsageError(
                f"answers to questions of the lake cannot be graded by the grader {self.grader}",
                where=f"{section}.task" if settings.grader is None else f"{section}.reward.grader",
                remedy=f"graders: {', '.join(LAKE_GRADERS)}",
            )

    def find_flaw(self, question: LakeQuestion) -> tuple[str, str] | None:
        """Reject a question without a final answer, and one of countdown without numbers and target."""
        if self.grader == "countdown":
            if read_puzzle(json.loads(question.metadata or "{}")) is None:
                return "no_puzzle", "the metadata has no whole numbers `numbers` and `target`"
        elif question.answer is None and extract_answer(question.solution) is None:
            return "no_answer", "the solution states no final answer to compare with"
        return None

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, question: LakeQuestion) -> str:
        """Render the student's prompt, of the task's message where there is a task."""
        message = question.question
        if self.task is not None:
            message = write_prompt(self.task, _make_task_question(question), 0).message
        return render_student_prompt(format, tokenizer, message).text

    def find_stop(self, format: ConversationFormat) -> str | None:
        """Return None: only end tokens end an answer."""
        return None

    def identify(self, format: ConversationFormat) -> dict[str, str]:
        """Return the hash of the task's prompt, and its grader."""
        if self.task is None:
            return {}
        return {"task_prompt": self.task.hash_prompt(format.student.model_dump()), "grader": self.grader}

    def build(
        self, format: ConversationFormat, tokenizer: Any, stack: ExitStack, notify: Notify | None
    ) -> Any:
        """Build the reward with its grader."""
        from rlt_data.training.rewards.correctness import CorrectnessReward

        grader = stack.enter_context(open_graders([self.grader]))[self.grader]
        return CorrectnessReward(
            grader,
            format=format,
            policy_tokenizer=tokenizer,
            format_penalty=self.settings.format_penalty,
        )


def _make_task_question(question: LakeQuestion) -> TaskQuestion:
    answer = question.answer or extract_answer(question.solution)
    return TaskQuestion(question.question_id, question.question, answer, "", None, question.metadata or "{}")


def find_reward_type(config: AnyGrpoConfig) -> RewardType:
    """Return the reward type of a training."""
    if isinstance(config, StudentGrpoConfig):
        return CorrectnessType(config.reward, task=config.task, section=config.section)
    match config.reward.type:
        case "rlt":
            return RltType(config)
        case "correctness":
            return CorrectnessType(config.reward.get_correctness(), section=config.section)
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
