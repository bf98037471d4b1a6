"""Options of vLLM, read by vLLM itself; skipped where it cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SCRIPT = """
import json, sys
from rlt_data.engines.vllm.options import RefusedError, parse_options
for options in json.loads(sys.argv[1]):
    try:
        print("@" + json.dumps([parse_options(options)]))
    except RefusedError as error:
        print("@" + json.dumps({"what": error.what, "where": error.where, "remedy": error.remedy}))
"""


def test_options_are_checked_by_vllm_itself(vllm_model: Path) -> None:
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"tensor_parallel_size": "2", "enforce_eager": "false"}, [2, False]),
        ({"gpu_memory_utilization": 0.5, "max_model_len": "1k"}, [0.5, 1000]),
        ({"max_num_seq": 4}, "did you mean 'max_num_seqs'?"),
        ({"tensor_parallel_size": "two"}, "invalid int value: 'two'"),
        ({"dtype": "float31"}, "choose from"),
        ({"enforce_eager": "perhaps"}, "must be true or false, not 'perhaps'"),
        ({"trust_remote_code": True}, "never run"),
        ({"load_format": "pt"}, "safetensors files only"),
        ({"load_format": "dummy"}, "safetensors files only"),
        ({"model_weights": "x"}, "resolved to exact files"),
        ({"quantization": "fp8", "max_num_seqs": "16", "dtype": "half"}, ["fp8", 16, "half"]),
        ({"compilation_config": {"modee": 1}}, "Unexpected keyword argument"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([options for options, _ in cases])],
        capture_output=True,
        text=True,
        check=True,
    )
    results = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    for (options, expected), found in zip(cases, results, strict=True):
        if isinstance(expected, list):
            assert list(found[0].values()) == expected, options
        else:
            assert expected in f"{found['what']} {found['remedy']}", options
