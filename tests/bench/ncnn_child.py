"""Runs in the environment that has ncnn: rounds on request, timed here, one answer a line.

Started as `python ncnn_child.py NAME.param NAME.bin INPUT OUTPUT VALUES.npy`; a line with a number
asks for so many runs and is answered with their milliseconds, `output` with the embedding.
"""

import json
import sys
from time import perf_counter

import ncnn
import numpy as np


def main(param, weights, source, sink, values):
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.lightmode = True
    # Half precision in storage or arithmetic would be another model.
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    if net.load_param(param) or net.load_model(weights):
        raise SystemExit("ncnn does not take the files")
    image = np.ascontiguousarray(np.load(values))

    def run():
        extractor = net.create_extractor()
        extractor.input(source, ncnn.Mat(image))
        failed, output = extractor.extract(sink)
        if failed:
            raise SystemExit(f"ncnn gave status {failed}")
        return output

    def milliseconds():
        began = perf_counter()
        run()
        return (perf_counter() - began) * 1000

    for line in sys.stdin:
        if line.strip() == "output":
            answer = np.array(run()).reshape(-1).tolist()
        else:
            answer = [milliseconds() for _ in range(int(line))]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
