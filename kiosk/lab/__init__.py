"""The workshop: makes and judges model files. The daemon never imports it."""
