"""SenseVoiceSmall: SAN-M encoder and CTC, with language, emotion and sounds in front of the text."""
