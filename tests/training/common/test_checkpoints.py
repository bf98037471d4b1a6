"""A checkpoint is valid once it is complete; an incomplete one is never used."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt_data.training.common.checkpoints import (
    MANIFEST,
    find_complete_checkpoint,
    is_complete,
    remove_older,
    write_manifest,
)


def write_checkpoint(directory: Path, step: int, *, whole: bool = True) -> Path:
    checkpoint = directory / f"checkpoint-{step}"
    (checkpoint / "reference").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights" * step)
    (checkpoint / "reference" / "model.safetensors").write_bytes(b"reference")
    if whole:
        write_manifest(checkpoint, {"step": step})
    return checkpoint


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert find_complete_checkpoint(tmp_path / "absent") is None
    write_checkpoint(tmp_path, 9)
    newest = write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 11, whole=False)
    (tmp_path / "checkpoint-x").mkdir()
    assert find_complete_checkpoint(tmp_path) == newest


def test_a_missing_or_truncated_file_is_incomplete(tmp_path: Path) -> None:
    one, other = write_checkpoint(tmp_path, 1), write_checkpoint(tmp_path, 2)
    (other / "model.safetensors").write_bytes(b"wei")
    assert find_complete_checkpoint(tmp_path) == one
    (one / "reference" / "model.safetensors").unlink()
    assert find_complete_checkpoint(tmp_path) is None


def test_a_truncated_manifest_is_incomplete(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1)
    note = checkpoint / MANIFEST
    note.write_text(note.read_text()[:-9])
    assert not is_complete(checkpoint)


def test_older_checkpoints_are_removed_only_once_newer_ones_are_complete(tmp_path: Path) -> None:
    for step, whole in ((1, True), (2, False), (3, True), (4, False)):
        write_checkpoint(tmp_path, step, whole=whole)
    remove_older(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    remove_older(tmp_path, keep=2)
    assert find_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_weights_spread_by_fsdp_are_read_and_written_whole(models: dict[str, str]) -> None:
    torch = pytest.importorskip("torch")
    from torch import distributed
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, init_device_mesh
    from transformers import AutoModelForCausalLM

    from rlt_data.training.common.weights import gather_weights, scatter_weights

    plain = AutoModelForCausalLM.from_pretrained(models["teacher"], dtype="float32")
    spread = AutoModelForCausalLM.from_pretrained(models["student"], dtype="float32")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(spread, mesh=init_device_mesh("cpu", (1,)))
        assert all(isinstance(parameter, DTensor) for parameter in spread.parameters())
        scatter_weights(spread, gather_weights(plain))
        found = gather_weights(spread)
    finally:
        distributed.destroy_process_group()
    for name, value in gather_weights(plain).items():
        assert type(found[name]) is torch.Tensor
        assert torch.equal(found[name], value)
