"""llama.cpp's server on a GGUF file, from the xllamacpp wheel."""

import argparse
import time

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=16)
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.weights
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * 2048
    params.cpuparams.n_threads = 2
    _server = xllamacpp.Server(params)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
