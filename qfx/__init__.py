"""Quantization of PyTorch models on one small graph engine."""
