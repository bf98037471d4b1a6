"""What is read from the log of a vLLM that died; the real one is in tests/engines/test_vllm.py."""

from __future__ import annotations

from rlt_data.engines.vllm.process import find_errors

LOG = """\
INFO 11-23 08:40:12 [core.py:110] Initializing a V1 LLM engine with config: model='x', errors: none
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] EngineCore failed to start.
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] Traceback (most recent call last):
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433]     raise ValueError(
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] ValueError: To serve one request, 2 GiB is needed
(EngineCore pid=44) Process EngineCore:
(EngineCore pid=44) ValueError: To serve one request, 2 GiB is needed
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)
"""


def test_errors_are_found_once_each_without_those_that_point_to_others() -> None:
    assert find_errors(LOG.splitlines()) == [
        "ValueError: To serve one request, 2 GiB is needed",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB",
    ]
    assert find_errors([]) == []
    assert len(find_errors(f"KeyError: {place}" for place in range(9))) == 3
