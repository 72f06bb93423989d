"""Triton kernels at native speed without a GPU: Triton's IR, lowered to C++, run on CPU tensors.

``parse`` reads the IR's text, ``lower`` prints it as C++, ``launch`` stands in for the kernel, ``twin`` gives an op
whose kernels are launched so.
"""
