"""K-quants, which llama.cpp's converter does not write: by its `llama-quantize`, or by the library that llama-cpp-python brings.

`python -m deepred_ray.quantize SOURCE TARGET TYPE` does what `llama-quantize` does, where llama-cpp-python is installed.
"""

import importlib.util
import shutil
import sys

from deepred_ray.errors import ModelError

# Numbers of llama.cpp's `enum llama_ftype`.
FILE_TYPES = {
    "q2_k": 10,
    "q3_k_s": 11,
    "q3_k_m": 12,
    "q3_k_l": 13,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_s": 16,
    "q5_k_m": 17,
    "q6_k": 18,
}


def quantizer() -> list[str]:
    """The command that takes source, target and type.

    Raises:
        ModelError: there is none on this machine.
    """
    if found := shutil.which("llama-quantize"):
        return [found]
    if importlib.util.find_spec("llama_cpp"):
        return [sys.executable, "-m", "deepred_ray.quantize"]
    raise ModelError(
        "a K-quant wants llama.cpp's quantizer, and there is none on this machine",
        "Put `llama-quantize` on PATH, or `pip install 'deepred-ray[kquants]'`, which compiles llama.cpp for some minutes; f16, "
        "bf16 and q8_0 need neither.",
    )


def main(source: str, target: str, kind: str) -> int:
    import ctypes

    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind.lower()]
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
