"""How the bundled demo model is made: speech synthesised by espeak-ng, and training in PyTorch."""
