"""Fun-ASR-Nano, ready to transcribe."""

from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, read_tokenizer
from funasr_cli.families.family import LoadedModel


class NanoModel:
    """A loaded model with its vocabularies."""

    def __init__(self, loaded: LoadedModel):
        self.loaded, self.config, self.network = loaded, loaded.file.config, loaded.network
        self.name, self.weights_type = loaded.name, loaded.weights_type
        self.capabilities = loaded.family.capabilities(self.config)
        self.tokenizer = read_tokenizer(loaded.files[TOKENIZER_FILE], self.config.llm.vocab_size)
        has_ctc = self.config.ctc is not None
        self.ctc_vocabulary = read_ctc_vocabulary(loaded.files[CTC_VOCABULARY_FILE]) if has_ctc else None
