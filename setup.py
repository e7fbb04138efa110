"""What pyproject.toml cannot say: kernels in C, left out where there is no C compiler (see lawm_data.nets.kernels)."""

from setuptools import Extension, setup

FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]

setup(
    ext_modules=[
        Extension("lawm_data.nets._kernels", ["lawm_data/nets/_kernels.c"], extra_compile_args=FLAGS, optional=True)
    ]
)
