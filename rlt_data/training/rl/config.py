"""Configuration of GRPO: what a model is trained on, by which reward, and options of TRL."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, assert_never

from pydantic import BaseModel, Field, model_validator

from rlt_data.bounds import STRICT, Count, Nats, Options, Rows, Temperature, Tokens, TrainingSeed
from rlt_data.formats import Role
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.contract import FreeField, Over, ResolvedField, RunField, StageConfig
from rlt_data.tasks.grading.base import GraderName
from rlt_data.training.common.trl_options import select_deciding


class CorrectnessSettings(BaseModel):
    """Settings of the reward for a correct answer: 1 for a correct one, 0 for every other completion."""

    model_config = STRICT

    grader: GraderName | None = Field(
        None,
        description="Correctness: how answers are compared with the true ones; unset: as the task's are, "
        "else math.",
    )
    format_penalty: float = Field(
        0.0,
        ge=-1e6,
        le=0,
        description="Correctness: added where thinking and solution are not both written and closed; "
        "0: correctness alone.",
    )


class GrpoReward(RewardSettings, CorrectnessSettings):
    """The reward: its type, and the settings of that type.

    `type` names the file in `rlt_data/training/rewards/`. `grader` and `format_penalty` are settings of
    `correctness`, all others but `shuffle` are those of `rlt`, and the same as in scoring and ranking.
    """

    type: Literal["rlt", "correctness"] = Field(
        "rlt",
        description="rlt: how well the students understand the explanation. correctness: the conventional "
        "baseline; the model sees the question without its solution and gets 1 for a correct answer.",
    )
    combine: Literal["mean", "minimum"] = Field(
        "mean", description="With several students: the mean or the minimum of their rewards."
    )
    shuffle: bool = Field(
        False, description="Control: distribute each group's rewards at random, so that they mean nothing."
    )

    @property
    def needs_students(self) -> bool:
        """Whether students score the completions."""
        match self.type:
            case "rlt":
                return True
            case "correctness":
                return False
            case never:
                assert_never(never)

    def get_settings(self) -> RewardSettings:
        """Return the settings that turn token scores into a reward."""
        return RewardSettings(**self.model_dump(include=set(RewardSettings.model_fields)))

    def get_correctness(self) -> CorrectnessSettings:
        """Return the settings of the reward for a correct answer."""
        return CorrectnessSettings(**self.model_dump(include=set(CorrectnessSettings.model_fields)))

    @model_validator(mode="after")
    def _check_type(self) -> GrpoReward:
        if self.type != "correctness" and self.get_correctness() != CorrectnessSettings():
            raise ValueError("grader and format_penalty are settings of the reward type correctness")
        return self


class GrpoOptions(StageConfig):
    """What GRPO of every role shares. The defaults are those of the paper's teacher (arXiv 2506.08388).

    `trainer` passes options on to `trl.GRPOConfig`, `lora` to `peft.LoraConfig`.
    """

    where: RunField[Annotated[str | None, Over("questions")]] = Field(
        None, description="SQL predicate over questions: use only these."
    )
    limit: RunField[Rows | None] = Field(None, description="Use only the first N questions.")

    steps: RunField[int] = Field(125, ge=1, le=10**9, description="Optimizer steps.")
    questions_per_step: RunField[Count] = Field(16, description="Questions per generation.")
    group_size: RunField[int] = Field(
        64,
        ge=2,
        le=1_000_000,
        description="Completions per question; rewards are compared among them.",
    )
    micro_batch_size: FreeField[Count | None] = Field(
        None,
        description="Completions per device in one forward and backward pass; unset: all of the device's.",
    )
    temperature: RunField[Temperature] = Field(0.7, description="Sampling temperature.")
    max_tokens: RunField[Tokens] = Field(16384, description="Maximum completion length in tokens.")
    max_prompt_tokens: RunField[Tokens] = Field(
        16384, description="Questions with a longer prompt are rejected."
    )
    save_every: FreeField[int] = Field(25, ge=1, le=10**9, description="Optimizer steps between checkpoints.")
    keep_checkpoints: FreeField[Count] = Field(1, description="Checkpoints to keep.")
    sync_limit: FreeField[Nats | None] = Field(
        0.1,
        description="Stop where the log-probabilities of vLLM and of the trainer differ by more than this on "
        "average, nats per token.",
    )
    trainer: RunField[Options] = Field(default_factory=dict, description="Options of trl.GRPOConfig.")
    lora: RunField[Options | None] = Field(
        None, description="Options of peft.LoraConfig; unset: all weights are trained."
    )

    @model_validator(mode="after")
    def _check_updates(self) -> GrpoOptions:
        updates = self.trainer.get("num_iterations", 1)
        if not isinstance(updates, int) or updates < 1:
            raise ValueError(f"num_iterations must be an integer of at least 1, not {updates!r}")
        if self.save_every % self.updates_per_generation:
            raise ValueError(
                f"save_every must be a multiple of num_iterations ({self.updates_per_generation}): a "
                "checkpoint between the updates of one generation could not be resumed exactly"
            )
        return self

    @property
    def generation_size(self) -> int:
        """Completions of one generation, over all processes."""
        return self.questions_per_step * self.group_size

    @property
    def updates_per_generation(self) -> int:
        """Optimizer steps per generation."""
        return int(self.trainer.get("num_iterations", 1))

    @property
    def generations(self) -> int:
        """Generations of the whole training."""
        return -(-self.steps // self.updates_per_generation)


class GrpoSection(GrpoOptions):
    """[grpo] of a teacher: what GRPO of every role shares, the reward, and the students that give it."""

    reward: RunField[GrpoReward] = Field(GrpoReward(), description="The reward.")
    student_temperature: RunField[Temperature] = Field(0.7, description="Student logits are divided by this.")
    teacher_temperature: RunField[Temperature] = Field(0.7, description="Teacher logits are divided by this.")
    teacher_logprobs: RunField[Literal["auto", "policy", "sampled", "reference", "none"]] = Field(
        "auto",
        description="Where the teacher's log-probabilities come from: a forward pass of the policy or of the "
        "reference model, or the sampled tokens; auto avoids the forward pass where it can.",
    )
    student_dtype: RunField[str] = Field("auto", description="Floating-point type of the students.")
    student_device: FreeField[str] = Field(
        "auto", description="Device of the students: auto, cpu, cuda:1 and so on."
    )
    student_quantization: RunField[Literal["none", "8bit", "4bit"]] = Field(
        "none", description="Quantization of the students, by bitsandbytes."
    )
    student_server: FreeField[Options] = Field(
        default_factory=dict,
        description="Use students behind a vLLM server: base_url and other options of the openai engine.",
    )
    pack_tokens: FreeField[Tokens | None] = Field(
        None, description="Tokens in one scoring pass; unset: chosen from the free memory."
    )

    @model_validator(mode="after")
    def _check_reward(self) -> GrpoSection:
        exact = self.reward.needs_divergences
        if self.teacher_logprobs == "sampled" and exact:
            raise ValueError("the estimator full needs teacher_logprobs = 'policy' or 'reference'")
        if self.student_server and exact:
            raise ValueError("the estimator full needs whole distributions, which a server does not return")
        if self.student_server and self.student_temperature != 1:
            raise ValueError(
                "a server applies no temperature to the texts that it scores: set "
                "grpo.student_temperature = 1"
            )
        if self.teacher_logprobs == "sampled" and self.temperature != self.teacher_temperature:
            raise ValueError(
                "teacher_logprobs = 'sampled' needs equal temperatures: grpo.temperature is "
                f"{self.temperature}, grpo.teacher_temperature is {self.teacher_temperature}"
            )
        return self


class RlSection(GrpoOptions):
    """[rl] of a student: GRPO with 1 for a correct answer as the reward."""

    task: ResolvedField[str | None] = Field(
        None,
        description="Task of which prompt and grader are used, as by evaluate; unset: the question alone.",
    )
    reward: RunField[CorrectnessSettings] = Field(CorrectnessSettings(), description="The reward.")


class GrpoTraining(GrpoOptions):
    """A whole GRPO training, of a model of any role; `section` is the recipe's section with its options."""

    role: ClassVar[Role]
    section: ClassVar[str]

    model: RunField[str] = Field(description="The model to train: an alias, a hub id or a local path.")
    output: FreeField[str] = Field(description="Directory of checkpoints and of the trained model.")
    format: RunField[str] = Field("stratos", description="Conversation format.")
    seed: RunField[TrainingSeed] = Field(0, description="Seed of the order of questions and of sampling.")

    @property
    def scoring_students(self) -> tuple[str, ...]:
        """The students that the reward uses."""
        return ()

    def list_identity(self) -> dict[str, Any]:
        """Return what determines the result, with those options of the trainer that do."""
        return {**super().list_identity(), "role": self.role, "trainer": select_deciding(self.trainer)}


class GrpoConfig(GrpoSection, GrpoTraining):
    """A whole GRPO training of a teacher."""

    role: ClassVar[Role] = "teacher"
    section: ClassVar[str] = "grpo"

    students: RunField[tuple[str, ...]] = Field(
        (), description="Frozen students whose understanding of the explanation is the reward."
    )

    @model_validator(mode="after")
    def _check_students(self) -> GrpoConfig:
        if self.reward.needs_students and not self.students:
            raise ValueError("the reward rlt needs a student: name one in students")
        return self

    @property
    def scoring_students(self) -> tuple[str, ...]:
        """The students that the reward uses."""
        return self.students if self.reward.needs_students else ()

    def list_identity(self) -> dict[str, Any]:
        """Return what determines the result, under the field names of version 0.1."""
        identity = super().list_identity()
        del identity["role"]
        identity["teacher"] = identity.pop("model")
        reward = identity.pop("reward")
        correctness = {name: reward.pop(name) for name in CorrectnessSettings.model_fields}
        if self.reward.get_correctness() != CorrectnessSettings():
            identity["correctness"] = correctness
        identity["reward"] = reward.pop("type")
        identity["combine"] = reward.pop("combine")
        identity["shuffle_rewards"] = reward.pop("shuffle")
        identity["rlt"] = reward
        identity["teacher_side"] = identity.pop("teacher_logprobs")
        return identity


class StudentGrpoConfig(RlSection, GrpoTraining):
    """A whole GRPO training of a student."""

    role: ClassVar[Role] = "student"
    section: ClassVar[str] = "rl"


AnyGrpoConfig = GrpoConfig | StudentGrpoConfig
