"""Names resolved to exact weights: aliases, paths, the hub's cache, and the messages where that fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlt_data.errors import ModelError
from rlt_data.models import describe_models, load_model, load_tokenizer, read_model_config, resolve_model
from rlt_data.models import fingerprint as fingerprint_module
from rlt_data.settings import ModelSettings, Settings, load_settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def resolve(name: str, settings: Settings | None = None) -> str:
    return resolve_model(name, role="teacher", settings=settings or Settings()).model


def put_in_hub_cache(cache: Path, model: str, source: Path) -> Path:
    folder = cache / f"models--{model.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    shutil.copytree(source, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


def test_an_alias_of_the_user_overrides_a_built_in_one(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "weights")
    (tmp_path / "rlt-data.toml").write_text('[models.qwen7b]\nmodel = "weights"\n', encoding="utf-8")
    settings = load_settings(tmp_path / "rlt-data.toml")
    identity = resolve_model("qwen7b", role="student", settings=settings)
    assert (identity.role, identity.name) == ("student", "qwen7b")
    assert identity.model == str(tmp_path / "weights")
    assert identity.revision == resolve_model(str(tiny_model), role="x", settings=settings).revision


def test_a_hub_id_that_is_cached_needs_no_network(hub_cache: Path, tiny_model: Path) -> None:
    snapshot = put_in_hub_cache(hub_cache, "Qwen/Qwen2.5-7B-Instruct", tiny_model)
    settings = Settings(models={"mine": ModelSettings(model="qwen7b")})
    for name in ("qwen7b", "mine", "Qwen/Qwen2.5-7B-Instruct"):
        identity = resolve_model(name, role="teacher", settings=settings)
        assert identity.model == "Qwen/Qwen2.5-7B-Instruct"
        assert identity.revision == COMMIT
        assert identity.directory == snapshot
    states = {line.alias: line.state for line in describe_models(settings)}
    assert states["qwen7b"] == states["mine"] == "cached"
    assert states["qwen14b"] == "not cached"


def test_a_snapshot_without_all_its_weights_is_not_cached(hub_cache: Path, tiny_model: Path) -> None:
    snapshot = put_in_hub_cache(hub_cache, "a/b", tiny_model)
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="network is switched off") as caught:
        resolve("a/b")
    assert caught.value.remedy is not None
    assert "hf download a/b" in caught.value.remedy
    only_tokenizer = resolve_model("a/b", role="teacher", settings=Settings(), need="tokenizer")
    assert only_tokenizer.revision == COMMIT


def test_an_unreachable_hub_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    script = (
        "from rlt_data.errors import ModelError\n"
        "from rlt_data.models import resolve_model\n"
        "try:\n"
        "    resolve_model('a/b', role='teacher')\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "the hub cannot be reached" in done.stdout
    assert "hf download a/b" in done.stdout


def test_a_model_that_is_only_named_needs_nothing_here() -> None:
    identity = resolve_model("served-model", role="teacher", settings=Settings(), need="name")
    assert (identity.model, identity.revision) == ("served-model", None)
    assert identity.content_key == "served-model"
    with pytest.raises(ModelError, match="not on this machine"):
        identity.require_directory()


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("qwen7", "no model is named 'qwen7'", "did you mean 'qwen7b'?"),
        ("./absent", "no such model directory", "check the path"),
        ("/absent/model", "no such model directory", "check the path"),
    ],
)
def test_a_name_that_means_nothing(name: str, what: str, remedy: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        resolve(name)
    assert caught.value.remedy is not None
    assert remedy in caught.value.remedy


def test_directories_that_hold_no_usable_model(tmp_path: Path, tiny_model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(empty))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(tiny_model / "config.json", pickled)
    with pytest.raises(ModelError, match=r"weights are missing: model\.safetensors"):
        resolve(str(pickled))
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=r"pickled weights are never loaded \(pytorch_model\.bin\)"):
        resolve(str(pickled))


def test_the_revision_of_a_local_model_is_its_content(tmp_path: Path, tiny_model: Path) -> None:
    def revise(directory: Path) -> str | None:
        return resolve_model(str(directory), role="x", settings=Settings()).revision

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    original = revise(copy)
    assert original == revise(tiny_model)
    (copy / "README.md").write_text("a note")
    (copy / "trainer_state.json").write_text("{}")
    assert revise(copy) == original
    (copy / "chat_template.jinja").write_text("other")
    changed = revise(copy)
    assert changed != original
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert revise(copy) not in (original, changed)


def test_hashes_of_large_files_are_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint_module, "SETTLED_AFTER", -3600)  # The files of this test are new.
    large = tmp_path / "model" / "model.safetensors"
    large.parent.mkdir()
    content = bytearray(fingerprint_module.SMALL_FILE + 1)
    long_ago = 1_600_000_000

    def write(last: int, when: int) -> str:
        content[-1] = last
        large.write_bytes(content)
        os.utime(large, (when, when))
        return fingerprint_module.hash_model_directory(large.parent)

    first = write(1, long_ago)
    notes = list((tmp_path / "cache" / "rlt-data" / "file-hashes").iterdir())
    assert len(notes) == 1
    assert write(2, long_ago + 1) != first
    assert write(1, long_ago + 2) == first
    # Rewritten with the same size and time of modification.
    before = large.stat().st_ctime_ns
    while (other := write(2, long_ago + 2)) == first:
        assert large.stat().st_ctime_ns == before, "the times of two changes differ, and the hash does not"
    replaced = large.with_name("draft")
    content[-1] = 1
    replaced.write_bytes(content)
    os.utime(replaced, (long_ago + 2, long_ago + 2))
    replaced.replace(large)
    assert fingerprint_module.hash_model_directory(large.parent) == first != other
    # The note is what is read while size and time of change stay the same.
    note = json.loads(notes[0].read_text())
    notes[0].write_text(json.dumps({**note, "digest": "other"}))
    assert fingerprint_module.hash_model_directory(large.parent) != first
    notes[0].write_text("broken")
    assert fingerprint_module.hash_model_directory(large.parent) == first


def test_configuration_is_read_without_the_model(tiny_model: Path) -> None:
    identity = resolve_model(str(tiny_model), role="x", settings=Settings())
    config = read_model_config(identity)
    model, tokenizer = load_model(identity, device="cpu"), load_tokenizer(identity)
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    assert config.parameters == model.num_parameters() - biases
    assert config.context == 1024
    assert config.end_token_ids == (tokenizer.eos_token_id,)
    assert config.count_cache_bytes(4) == 2 * 2 * 2 * 8 * 4
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_broken_weights_are_an_error_not_random_numbers(tmp_path: Path, tiny_model: Path) -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    weights = copy / "model.safetensors"
    tensors = torch_files.load_file(weights)
    dropped = next(name for name in tensors if name.endswith("q_proj.weight"))
    kept = {name: tensor for name, tensor in tensors.items() if name != dropped}
    torch_files.save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights are missing") as caught:
        load_model(resolve_model(str(copy), role="x", settings=Settings()), device="cpu")
    assert dropped in caught.value.what
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(resolve_model(str(copy), role="x", settings=Settings()), device="cpu")


def test_an_adapter_is_merged_into_its_base(tmp_path: Path, tiny_model: Path) -> None:
    peft = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    identity = resolve_model(str(tiny_model), role="x", settings=Settings())
    options = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(load_model(identity, device="cpu"), options)
    adapted.save_pretrained(tmp_path / "adapter")
    adapter = resolve_model(str(tmp_path / "adapter"), role="x", settings=Settings())
    assert adapter.base is not None
    assert adapter.base.revision == identity.revision
    assert adapter.revision not in (None, identity.revision)
    ids = torch.arange(8).unsqueeze(0)
    with torch.inference_mode():
        expected = adapted(ids).logits
        merged = load_model(adapter, device="cpu")(ids).logits
        plain = load_model(identity, device="cpu")(ids).logits
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)
    assert (merged - plain).abs().max() > 1e-3
    assert load_tokenizer(adapter).get_vocab() == load_tokenizer(identity).get_vocab()
    assert read_model_config(adapter) == read_model_config(identity)


def test_the_list_of_models_reads_local_files(tmp_path: Path, tiny_model: Path, hub_cache: Path) -> None:
    text = f'[models.mine]\nmodel = "{tiny_model}"\nabout = "a test"\n[models.gone]\nmodel = "./gone"\n'
    (tmp_path / "rlt-data.toml").write_text(text, encoding="utf-8")
    lines = describe_models(load_settings(tmp_path / "rlt-data.toml"))
    mine, gone = lines[0], lines[1]
    assert (mine.alias, mine.state, mine.context, mine.about) == ("mine", "local", 1024, "a test")
    assert mine.parameters == pytest.approx(3e-5, rel=0.5)
    assert (gone.alias, gone.state) == ("gone", "missing")
    assert {"qwen0.5b", "qwen7b", "qwen72b", "bespoke7b", "bespoke32b"} <= {line.alias for line in lines}


def test_names_resolve_without_heavy_imports(tiny_model: Path) -> None:
    script = (
        "import sys\n"
        "from rlt_data.models import describe_models, read_model_config, resolve_model\n"
        "import rlt_data.engines, rlt_data.stages.generate.stage\n"
        f"read_model_config(resolve_model({str(tiny_model)!r}, role='x'))\n"
        "describe_models()\n"
        "heavy = {'torch', 'transformers', 'vllm', 'trl', 'datasets', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("length", [1, 2])
def test_an_adapter_that_is_its_own_base_is_refused_by_name(tmp_path: Path, length: int) -> None:
    for number in range(length):
        folder = tmp_path / f"adapter{number}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        base = str(tmp_path / f"adapter{(number + 1) % length}")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    with pytest.raises(ModelError, match=r"the adapter is its own base model, which it names .*adapter"):
        resolve(str(tmp_path / "adapter0"))
