"""Runs inside the emulated machine: one model over many inputs, with onnxruntime and numpy only."""

import json
import platform
import sys

import numpy as np
import onnxruntime as ort


def main(model: str, source: str, target: str) -> None:
    """Embeddings of the inputs in `source` (.npy) into `target` (.npy), in the daemon's way."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: x[None]})[0][0].reshape(-1) for x in np.load(source)]
    np.save(target, np.stack(rows))
    print(json.dumps({"machine": platform.machine(), "onnxruntime": ort.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
