"""Lowering: dequantize-op-quantize becomes an integer kernel of a target. One folder a target."""
