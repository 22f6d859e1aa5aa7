"""Make the bundled demo models: speech synthesis with espeak-ng, and training in PyTorch."""
